//! Programs of this machine inside a container that lacks them, with their libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::{self, Ssh};
use super::host::Host;

/// Where this machine keeps a program.
pub fn find(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.exists())
}

/// Copies `program` into the pod, and returns how it is called there.
#[track_caller]
pub fn carry(host: &Host, program: &str) -> String {
    carry_by(host, program, |host, command| host.ssh(command))
}

/// The same, by another way in.
#[track_caller]
pub fn carry_by<'h>(
    host: &'h Host,
    program: &str,
    ssh: impl Fn(&'h Host, String) -> Ssh<'h>,
) -> String {
    let path = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let listed = client::local("ldd", [&path]).line();
    let libraries: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .collect();
    let loader = libraries
        .iter()
        .find(|path| path.contains("/ld-"))
        .and_then(|path| path.rsplit('/').next())
        .expect("a loader");
    let mut tar = Command::new("tar");
    tar.args(["-ch", "--transform", "s,.*/,,", "-P", "-f", "-"])
        .args(&libraries)
        .arg(&path);
    client::clean(&mut tar);
    let packed = client::run(tar, Vec::new(), std::time::Duration::from_secs(60));
    assert_eq!(packed.code, Some(0), "{packed}");
    let dir = format!("/tmp/carried/{program}");
    let unpack = format!("mkdir -p {dir} && tar -x -C {dir} -f -");
    let unpacked = ssh(host, unpack).input(packed.stdout).run();
    assert_eq!(unpacked.code, Some(0), "{unpacked}");
    format!("{dir}/{loader} --library-path {dir} {dir}/{program}")
}
