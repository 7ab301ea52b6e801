//! How a pull or load is shown while it goes on.
//!
//! Runs in the process that pulls. On a terminal: a few lines that are drawn
//! over and over by a thread of their own, so that the events, which come often
//! and from several threads, cost next to nothing. Elsewhere: a line a layer, or
//! JSON, one object a line.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use podspawn_images::digest::Digest;
use podspawn_images::progress::{LayerEvent, Progress, Retry, Silent};
use podspawn_images::reference::Reference;
use serde_json::json;

use super::board::{Board, short};
use super::text;

/// How often the terminal is drawn.
const DRAW: Duration = Duration::from_millis(100);
/// How often JSON reports the bytes of one layer.
const REPORT: Duration = Duration::from_millis(250);

/// What to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    // Not doc comments: they would turn the help's one line into five.
    // For people: progress on standard error, the result on standard output.
    #[default]
    #[allow(missing_docs)]
    Text,
    // One object a line on standard output, the result last.
    #[allow(missing_docs)]
    Json,
}

/// Something that shows the progress of a verb.
#[must_use]
pub fn of_verb(format: Format, quiet: bool) -> Box<dyn Progress> {
    match format {
        Format::Json => Box::new(Json::new(io::stdout(), quiet)),
        Format::Text if quiet => Box::new(Silent),
        Format::Text if can_draw() => Box::new(Screen::start()),
        Format::Text => Box::new(Lines::new(io::stderr())),
    }
}

/// Something that shows the progress of a pull on the way to a session: drawn on
/// the session's terminal and gone afterwards, and silence where there is none,
/// because a single byte would break sftp or rsync.
///
/// May start a thread, so not in the session's own process.
#[must_use]
pub fn of_session() -> Box<dyn Progress> {
    if can_draw() {
        Box::new(Screen::start())
    } else {
        Box::new(Silent)
    }
}

fn can_draw() -> bool {
    io::stderr().is_terminal()
        && std::env::var_os("TERM").is_some_and(|t| !t.is_empty() && t != "dumb")
}

/// Locks, whatever became of the thread that held it: the state is for show.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn retry_text(retry: &Retry<'_>) -> String {
    let wait = text::time(retry.wait);
    format!("{}: {}; trying again in {wait}", retry.what, retry.why)
}

/// Drawn on a terminal, and erased when dropped.
struct Screen {
    shared: Arc<Mutex<Shown>>,
    stop: Option<Sender<()>>,
    drawer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shown {
    board: Board,
    /// Lines to leave above the board.
    notes: Vec<String>,
}

impl Screen {
    fn start() -> Self {
        let shared = Arc::new(Mutex::new(Shown::default()));
        let (stop, stopped) = channel::<()>();
        let for_drawer = Arc::clone(&shared);
        let begun = Instant::now();
        let draw = move || {
            let mut drawn = 0;
            loop {
                let last = !matches!(stopped.recv_timeout(DRAW), Err(RecvTimeoutError::Timeout));
                let (columns, rows) = terminal_size();
                let mut shown = lock(&for_drawer);
                shown.board.sample(begun.elapsed());
                let frame = if last {
                    Vec::new()
                } else {
                    shown.board.frame(columns, rows)
                };
                let notes = std::mem::take(&mut shown.notes);
                drop(shown);
                let _ = io::stderr().write_all(redraw(drawn, &notes, &frame).as_bytes());
                drawn = frame.len();
                if last {
                    break;
                }
            }
        };
        // Where no thread can be had, the work goes on unseen.
        let drawer = std::thread::Builder::new()
            .name("progress".into())
            .spawn(draw)
            .ok();
        Self {
            shared,
            stop: Some(stop),
            drawer,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(drawer) = self.drawer.take() {
            let _ = drawer.join();
        }
    }
}

/// What takes a terminal from `drawn` lines above the cursor to the notes, to
/// stay, and the frame below them.
fn redraw(drawn: usize, notes: &[String], frame: &[String]) -> String {
    let mut text = String::new();
    if drawn > 0 {
        // To the first of the lines, and erase from there.
        text.push_str(&format!("\x1b[{drawn}A\r\x1b[J"));
    }
    for note in notes {
        text.push_str(&format!("podspawn: {}\n", text::escape(note)));
    }
    for line in frame {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

impl Progress for Screen {
    fn layers(&self, image: &Reference, layers: &[(Digest, u64)]) {
        lock(&self.shared).board.begin(image.to_string(), layers);
    }

    fn layer(&self, layer: &Digest, event: LayerEvent) {
        lock(&self.shared).board.layer(layer, event);
    }

    fn retry(&self, retry: &Retry<'_>) {
        lock(&self.shared).notes.push(retry_text(retry));
    }

    fn note(&self, message: &str) {
        lock(&self.shared).notes.push(message.to_owned());
    }
}

/// A line for everything that is complete.
struct Lines<W> {
    board: Mutex<Board>,
    out: Mutex<W>,
}

impl<W: Write> Lines<W> {
    fn new(out: W) -> Self {
        Self {
            board: Mutex::default(),
            out: Mutex::new(out),
        }
    }

    fn say(&self, line: &str) {
        let line = format!("{}\n", text::escape(line));
        let _ = lock(&self.out).write_all(line.as_bytes());
    }
}

impl<W: Write + Send> Progress for Lines<W> {
    fn layers(&self, image: &Reference, layers: &[(Digest, u64)]) {
        lock(&self.board).begin(image.to_string(), layers);
        let total = layers
            .iter()
            .map(|(_, size)| *size)
            .fold(0, u64::saturating_add);
        self.say(&format!(
            "{image}: {}, {}",
            super::board::layers(layers.len()),
            text::size(total)
        ));
    }

    fn layer(&self, layer: &Digest, event: LayerEvent) {
        let what = match event {
            LayerEvent::AlreadyThere => "already there",
            LayerEvent::Waiting => "waiting for another process that fetches it",
            LayerEvent::Done => "done",
            _ => return,
        };
        let size = lock(&self.board)
            .size_of(layer)
            .map(text::size)
            .unwrap_or_default();
        self.say(&format!("{}: {size} {what}", short(layer)));
    }

    fn retry(&self, retry: &Retry<'_>) {
        self.say(&retry_text(retry));
    }

    fn note(&self, message: &str) {
        self.say(message);
    }
}

/// JSON, one object a line.
struct Json<W> {
    out: Mutex<W>,
    /// Only what a program must not miss.
    quiet: bool,
    /// When the bytes of a layer were last reported.
    reported: Mutex<HashMap<Digest, Instant>>,
}

impl<W: Write> Json<W> {
    fn new(out: W, quiet: bool) -> Self {
        Self {
            out: Mutex::new(out),
            quiet,
            reported: Mutex::default(),
        }
    }

    fn say(&self, event: &serde_json::Value) {
        let _ = lock(&self.out).write_all(format!("{event}\n").as_bytes());
    }

    /// Whether the bytes of this layer were not reported just now.
    fn is_due(&self, layer: &Digest) -> bool {
        let now = Instant::now();
        let mut reported = lock(&self.reported);
        let due = reported
            .get(layer)
            .is_none_or(|then| now.duration_since(*then) >= REPORT);
        if due {
            reported.insert(layer.clone(), now);
        }
        due
    }
}

impl<W: Write + Send> Progress for Json<W> {
    fn layers(&self, image: &Reference, layers: &[(Digest, u64)]) {
        if !self.quiet {
            let layer = |(digest, size): &(Digest, u64)| json!({"digest": digest.to_string(), "size": size});
            let layers: Vec<_> = layers.iter().map(layer).collect();
            self.say(&json!({"event": "layers", "reference": image.to_string(), "layers": layers}));
        }
    }

    fn layer(&self, layer: &Digest, event: LayerEvent) {
        let digest = layer.to_string();
        let event = match event {
            _ if self.quiet => return,
            LayerEvent::AlreadyThere => {
                json!({"event": "layer", "digest": digest, "state": "present"})
            }
            LayerEvent::Waiting => json!({"event": "layer", "digest": digest, "state": "waiting"}),
            LayerEvent::Fetched { fetched, total } => {
                if fetched < total && !self.is_due(layer) {
                    return;
                }
                json!({"event": "layer", "digest": digest, "state": "fetching", "fetched": fetched, "size": total})
            }
            LayerEvent::Unpacking { expanded } => {
                if !self.is_due(layer) {
                    return;
                }
                json!({"event": "layer", "digest": digest, "state": "unpacking", "expanded": expanded})
            }
            LayerEvent::Done => json!({"event": "layer", "digest": digest, "state": "done"}),
            _ => return,
        };
        self.say(&event);
    }

    fn retry(&self, retry: &Retry<'_>) {
        if !self.quiet {
            self.say(&json!({
                "event": "retry", "what": retry.what, "why": retry.why, "failed": retry.failed,
                "wait_ms": u64::try_from(retry.wait.as_millis()).unwrap_or(u64::MAX),
            }));
        }
    }

    fn note(&self, message: &str) {
        if !self.quiet {
            self.say(&json!({"event": "note", "message": message}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u64) -> Digest {
        format!("sha256:{n:064x}").parse().unwrap()
    }

    /// One pull: a layer that is there, one that is fetched, and a failure.
    fn pull(progress: &dyn Progress) {
        let image: Reference = "x:1".parse().unwrap();
        progress.layers(&image, &[(digest(1), 100), (digest(2), 2000)]);
        progress.layer(&digest(1), LayerEvent::AlreadyThere);
        for fetched in [0, 500, 1000, 2000] {
            progress.layer(
                &digest(2),
                LayerEvent::Fetched {
                    fetched,
                    total: 2000,
                },
            );
        }
        let wait = Duration::from_millis(500);
        progress.retry(&Retry {
            what: "a layer",
            why: "reset\x1b",
            failed: 1,
            wait,
        });
        progress.note("a\nnote");
        progress.layer(&digest(2), LayerEvent::Unpacking { expanded: 9000 });
        progress.layer(&digest(2), LayerEvent::Done);
    }

    #[test]
    fn a_pipe_gets_a_line_for_what_is_complete() {
        let lines = Lines::new(Vec::new());
        pull(&lines);
        let text = String::from_utf8(lines.out.into_inner().unwrap()).unwrap();
        assert_eq!(
            text,
            "docker.io/library/x:1: 2 layers, 2.1 kB\n\
             000000000000: 100 B already there\n\
             a layer: reset\\u{1b}; trying again in 0.5 s\n\
             a\\nnote\n\
             000000000000: 2.0 kB done\n"
        );
    }

    #[test]
    fn json_has_an_object_a_line_and_not_every_byte() {
        let json = Json::new(Vec::new(), false);
        pull(&json);
        let text = String::from_utf8(json.out.into_inner().unwrap()).unwrap();
        let events: Vec<serde_json::Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(events[0]["layers"][1]["size"], 2000);
        let states: Vec<_> = events.iter().filter_map(|e| e["state"].as_str()).collect();
        assert_eq!(states, ["present", "fetching", "fetching", "done"]);
        assert_eq!(events[3]["fetched"], 2000);
        assert_eq!(events[4]["why"], "reset\u{1b}");
        assert_eq!(events[5]["message"], "a\nnote");
    }

    #[test]
    fn quiet_json_is_nothing_but_the_result() {
        let json = Json::new(Vec::new(), true);
        pull(&json);
        assert_eq!(json.out.into_inner().unwrap(), b"");
    }

    #[test]
    fn a_frame_is_drawn_over_the_last_one() {
        let lines = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(redraw(0, &[], &lines(&["a", "b"])), "a\nb\n");
        assert_eq!(
            redraw(2, &lines(&["n\x1b"]), &lines(&["c"])),
            "\x1b[2A\r\x1b[Jpodspawn: n\\u{1b}\nc\n"
        );
        assert_eq!(redraw(1, &[], &[]), "\x1b[1A\r\x1b[J");
        assert_eq!(redraw(0, &[], &[]), "");
    }
}
