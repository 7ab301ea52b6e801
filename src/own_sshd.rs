//! An sshd of an ordinary user, for one connection (`sshd -i`): what `podspawn sshd` and
//! `podspawn verify-image` set up alike. Each adds what it lets clients do.

use std::path::Path;
use std::process::{Command, Stdio};

/// `ssh-keygen`, about to make the key `path` and `path.pub`.
#[must_use]
pub fn keygen(path: &Path, comment: &str) -> Command {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The lines of its configuration that are the same for all: who may log in is a matter of the
/// keys in the file `keys`, and everybody gets the command line `forced`.
#[must_use]
pub fn config(host_key: &Path, keys: &Path, forced: &str) -> String {
    // Without root there is no PAM, and no telling whose the directories above the keys are.
    format!(
        "HostKey \"{}\"\n\
         AuthorizedKeysFile \"{}\"\n\
         PidFile none\n\
         AuthenticationMethods publickey\n\
         UsePAM no\n\
         StrictModes no\n\
         UseDNS no\n\
         PrintMotd no\n\
         PrintLastLog no\n\
         PermitUserRC no\n\
         AllowStreamLocalForwarding no\n\
         Subsystem sftp internal-sftp\n\
         ForceCommand {forced}\n",
        host_key.display(),
        keys.display()
    )
}

/// One word of `forced`, for any shell that the user may have; `None` where there is none for it.
#[must_use]
pub fn quoted(word: &str) -> Option<String> {
    // Shells differ about a backslash between quotes, and sshd reads line by line.
    let plain = |c: char| !c.is_control() && c != '\\';
    let fits = word.chars().all(plain);
    fits.then(|| format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the shell that there is everywhere; `podspawn sshd` and `verify-image` try sshd itself.
    #[test]
    fn words_survive_a_shell() {
        for word in ["/a b/$x", "it's", "a\"b", "`id`", "*", "", "-n", "é"] {
            let line = format!("printf %s {}", quoted(word).unwrap());
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(output.stdout, word.as_bytes(), "{line}");
        }
        for bad in ["a\nb", "a\\b", "a\0b"] {
            assert_eq!(quoted(bad), None, "{bad:?}");
        }
    }
}
