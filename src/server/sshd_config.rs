//! The text of sshd's configuration: the block of container users, and where it
//! goes. Pure.
//!
//! sshd takes the first value it finds for a keyword, and a `Match` block over
//! what is said outside of one, wherever it stands. A block in an included file
//! ends with that file; at the end of `sshd_config` it is closed by `Match all`,
//! so that a line appended later does not fall into it.

use std::path::{Path, PathBuf};

use super::GROUP;

/// The file in the directory that `sshd_config` includes.
pub const DROP_IN: &str = "50-podspawn.conf";

const BEGIN: &str = "# BEGIN podspawn: kept by `podspawn server-setup`";
const END: &str = "# END podspawn";

/// What sshd is to do for container users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The podspawn that sessions run, an absolute path.
    pub program: PathBuf,
    /// Where their public keys are.
    pub key_dir: PathBuf,
    /// Whether the session module takes forwarding into the pod. Without it sshd
    /// forwards from its own process, in the host's network.
    pub forwarding: bool,
}

impl Block {
    /// The forced command, as sshd hands it to the login shell. `exec`, because not every
    /// shell becomes the last command by itself, and one in between hides a death by signal.
    #[must_use]
    pub fn forced_command(&self) -> String {
        format!("exec {} spawn", self.program.display())
    }

    /// Keyword and value of each line, as `sshd -T` says them too.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let keys = format!("{}/%u .ssh/authorized_keys", self.key_dir.display());
        let mut settings = vec![
            ("ForceCommand", self.forced_command()),
            ("AuthorizedKeysFile", keys),
            ("AllowAgentForwarding", "yes".to_owned()),
        ];
        let rest: &[(&str, &str)] = if self.forwarding {
            &[
                ("AllowTcpForwarding", "yes"),
                ("AllowStreamLocalForwarding", "no"),
                ("X11Forwarding", "yes"),
                ("X11UseLocalhost", "yes"),
                ("PermitOpen", "any"),
                ("PermitListen", "any"),
                // Where a listener is reached from is the pod's affair.
                ("GatewayPorts", "clientspecified"),
            ]
        } else {
            &[
                ("AllowTcpForwarding", "no"),
                ("AllowStreamLocalForwarding", "no"),
                ("X11Forwarding", "no"),
                ("PermitOpen", "none"),
                ("PermitListen", "none"),
                ("GatewayPorts", "no"),
            ]
        };
        let closed = [("PermitTunnel", "no"), ("PermitUserRC", "no")];
        settings.extend(
            rest.iter()
                .chain(&closed)
                .map(|(k, v)| (*k, (*v).to_owned())),
        );
        settings
    }

    /// The block, from `Match` on.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("Match Group {GROUP}\n");
        for (keyword, value) in self.settings() {
            text.push_str(&format!("    {keyword} {value}\n"));
        }
        text
    }

    /// The block as a file of its own.
    #[must_use]
    pub fn drop_in(&self) -> String {
        let why = if self.forwarding {
            "# Forwarding is open because pam_podspawn.so takes it into the pod."
        } else {
            "# Forwarding is closed: sshd would forward into the host's own network."
        };
        format!(
            "# Kept by `podspawn server-setup`, which writes it anew; --remove takes it away.\n{why}\n{}",
            self.text()
        )
    }
}

/// The directory whose `*.conf` this `sshd_config` includes for everybody, if it
/// does. `base` is where relative names start, sshd's own directory.
#[must_use]
pub fn included_dir(main: &str, base: &Path) -> Option<PathBuf> {
    for line in main.lines() {
        let (keyword, value) = keyword(line)?;
        match keyword.to_ascii_lowercase().as_str() {
            "match" => return None,
            "include" => {
                let found = value
                    .split_whitespace()
                    .map(|word| word.trim_matches('"'))
                    .find_map(|pattern| pattern.strip_suffix("/*.conf"))
                    .filter(|dir| !dir.contains(['*', '?', '[']));
                if let Some(dir) = found {
                    return Some(base.join(dir));
                }
            }
            _ => {}
        }
    }
    None
}

/// Keyword and the rest; both empty for a blank line or a comment. sshd allows
/// one `=` between them.
fn keyword(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Some(("", ""));
    }
    let end = line
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    Some((keyword, rest.strip_prefix('=').unwrap_or(rest).trim()))
}

/// `sshd_config` with the block at its end, in the place of an earlier one.
#[must_use]
pub fn with_block(main: &str, block: &Block) -> String {
    let mut text = without_block(main);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("{BEGIN}\n{}Match all\n{END}\n", block.text()));
    text
}

/// `sshd_config` without the block.
#[must_use]
pub fn without_block(main: &str) -> String {
    let mut text = String::with_capacity(main.len());
    let mut inside = false;
    for line in main.split_inclusive('\n') {
        match line.trim_end() {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if !inside => text.push_str(line),
            _ => {}
        }
    }
    // A mark whose end somebody removed says nothing about where the block ended.
    if inside { main.to_owned() } else { text }
}

/// Values in the output of `sshd -T`: keywords are in small letters there.
#[must_use]
pub fn in_force<'a>(output: &'a str, keyword: &str) -> Option<&'a str> {
    output.lines().find_map(|line| {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        name.eq_ignore_ascii_case(keyword).then_some(value)
    })
}

/// What in the output of `sshd -T -C user=…` is not as the block wants it, one
/// text each.
#[must_use]
pub fn differences(block: &Block, output: &str) -> Vec<String> {
    let settings = block.settings();
    let wrong = settings.iter().filter_map(|(keyword, wanted)| {
        let found = in_force(output, keyword).unwrap_or("nothing");
        (found != wanted).then(|| format!("{keyword} is {found}, not {wanted}"))
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block() -> Block {
        Block {
            program: "/usr/bin/podspawn".into(),
            key_dir: "/etc/podspawn/keys".into(),
            forwarding: false,
        }
    }

    #[test]
    fn the_safe_block_closes_everything_that_reaches_the_host() {
        assert_eq!(
            block().text(),
            "Match Group podspawn\n    \
                 ForceCommand exec /usr/bin/podspawn spawn\n    \
                 AuthorizedKeysFile /etc/podspawn/keys/%u .ssh/authorized_keys\n    \
                 AllowAgentForwarding yes\n    \
                 AllowTcpForwarding no\n    \
                 AllowStreamLocalForwarding no\n    \
                 X11Forwarding no\n    \
                 PermitOpen none\n    \
                 PermitListen none\n    \
                 GatewayPorts no\n    \
                 PermitTunnel no\n    \
                 PermitUserRC no\n"
        );
    }

    #[test]
    fn an_include_counts_only_for_everybody() {
        let base = Path::new("/etc/ssh");
        let dir = |text| included_dir(text, base);
        let usual = Some(PathBuf::from("/etc/ssh/sshd_config.d"));
        assert_eq!(dir("Include /etc/ssh/sshd_config.d/*.conf\n"), usual);
        assert_eq!(dir("# x\n\n  include = \"sshd_config.d/*.conf\" \n"), usual);
        assert_eq!(
            dir("Port 22\nInclude /a/b.conf sshd_config.d/*.conf"),
            usual
        );
        assert_eq!(dir("#Include /etc/ssh/sshd_config.d/*.conf\n"), None);
        assert_eq!(dir("Match User x\nInclude sshd_config.d/*.conf\n"), None);
        assert_eq!(dir("Include /etc/*/x/*.conf\n"), None);
        assert_eq!(dir(""), None);
    }

    #[test]
    fn the_block_is_replaced_and_taken_away() {
        let main = "Port 22\nMatch User x\n  X11Forwarding yes\n";
        let once = with_block(main, &block());
        assert!(once.starts_with(main) && once.ends_with("Match all\n# END podspawn\n"));
        assert_eq!(with_block(&once, &block()), once);
        let mut open = block();
        open.forwarding = true;
        assert_eq!(without_block(&with_block(&once, &open)), main);
    }

    #[test]
    fn a_mark_without_its_end_takes_nothing_away() {
        let text = format!("Port 22\n{BEGIN}\nMatch Group podspawn\nUsePAM yes\n");
        assert_eq!(without_block(&text), text);
    }

    #[test]
    fn what_is_not_in_force_is_named() {
        let mut output = String::from("port 22\npermittunnelx no\n");
        for (keyword, value) in block().settings() {
            output.push_str(&format!("{} {value}\n", keyword.to_ascii_lowercase()));
        }
        assert_eq!(differences(&block(), &output), Vec::<String>::new());
        let output = output.replace("permitopen none", "permitopen any");
        let output = output.replace("permituserrc no\n", "");
        assert_eq!(
            differences(&block(), &output),
            [
                "PermitOpen is any, not none",
                "PermitUserRC is nothing, not no"
            ]
        );
    }

    proptest! {
        #[test]
        fn what_the_administrator_wrote_stays(main in "([ -~]{0,30}\n){0,6}") {
            prop_assert_eq!(without_block(&with_block(&main, &block())), main);
        }
    }
}
