//! `podspawn logs`: what a pod's supervisor wrote down.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use podspawn_runtime::pod::{PodName, PodPaths};
use serde_json::json;

use super::format::{Answer, says};
use super::{Place, pods};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::output::progress::Format;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `podspawn logs`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("The lines as they are, or a JSON object for each")))]
pub struct Args {
    /// The pod; the default pod unless given
    #[arg(value_name = "POD")]
    pod: Option<PodName>,
    /// Go on with what is added, until the pod has ended
    #[arg(long, short)]
    follow: bool,
    /// Begin with the last so many lines
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<usize>,
    #[command(flatten)]
    answer: Answer,
}

/// Prints the log.
///
/// # Errors
///
/// When there is no such pod, or its log cannot be read.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let name = args.pod.clone().unwrap_or_else(PodName::default_pod);
    let paths = pods::paths(&place, &name)?;
    let cannot = |e: io::Error| {
        let path = paths.log();
        Failure::new(format!("cannot read the log {}: {e}", path.display()))
    };
    let mut log = match File::open(paths.log()) {
        Ok(file) => Following::new(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(pods::no_such(&name)),
        Err(e) => return Err(cannot(e)),
    };
    let mut text = std::fs::read_to_string(paths.old_log()).unwrap_or_default();
    text.push_str(&log.more().map_err(cannot)?);
    let skip = args
        .tail
        .map_or(0, |tail| text.lines().count().saturating_sub(tail));
    let shown = text.lines().skip(skip);
    print(shown, args.answer.format)?;
    if args.follow {
        loop {
            // First, so that nothing is missed of what came before the end.
            let over = !pods::one(&place, &name).is_ok_and(|pod| pod.is_there());
            let more = log.more().map_err(cannot)?;
            print(more.lines(), args.answer.format)?;
            log.reopen(&paths);
            if over {
                break;
            }
            std::thread::sleep(LOOK);
        }
    }
    Ok(Exit::Success)
}

/// A log and how far it was read, in whole lines.
struct Following {
    file: File,
    at: u64,
}

impl Following {
    fn new(file: File) -> Self {
        Self { file, at: 0 }
    }

    /// The whole lines that were added.
    fn more(&mut self) -> io::Result<String> {
        self.file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        self.at += whole as u64;
        bytes.truncate(whole);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Goes on with the file that has taken the log's place.
    fn reopen(&mut self, paths: &PodPaths) {
        let inode = |file: &File| file.metadata().map(|m| m.ino()).ok();
        if let Ok(file) = File::open(paths.log())
            && inode(&file) != inode(&self.file)
        {
            *self = Self::new(file);
        }
    }
}

fn print<'a>(lines: impl Iterator<Item = &'a str>, format: Format) -> Result<(), Failure> {
    let line = |line: &str| match (format, line.split_once(' ')) {
        (Format::Json, Some((time, message))) => {
            format!("{}\n", json!({"time": time, "message": message}))
        }
        // The lines are escaped as they are written.
        _ => format!("{line}\n"),
    };
    let text: String = lines.map(line).collect();
    if !text.is_empty() {
        output::answer(&text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_line_is_shown_when_it_is_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Following::new(file.reopen().unwrap());
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(log.more().unwrap(), "one\n");
        assert_eq!(log.more().unwrap(), "");
        file.write_all(b"o\n").unwrap();
        assert_eq!(log.more().unwrap(), "two\n");
    }
}
