//! The other clients: rsync, git, tar, sshfs, lftp, curl, paramiko, asyncssh, Ansible.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{
    Battery, Entry, Image, add_links, far, fresh, make_tree, name, ssh_words, ssh_words_unquoted,
    tree,
};
use crate::support::client::{self, Output};
use crate::support::host::{Host, executable};
use crate::support::skip;

pub fn all() -> Battery {
    vec![
        ("rsync", rsync),
        ("git", git),
        ("tar", tar),
        ("sshfs", sshfs),
        ("lftp", lftp),
        ("curl", curl),
        ("paramiko", paramiko_battery),
        ("asyncssh", asyncssh),
        ("ansible", ansible),
    ]
}

const LIMIT: Duration = Duration::from_secs(120);

fn run(host: &Host, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    client::clean(&mut command);
    command
        .current_dir(host.files())
        .envs(environment.iter().copied());
    client::run(command, Vec::new(), LIMIT)
}

#[track_caller]
fn run_ok(host: &Host, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = run(host, program, arguments, environment);
    assert_eq!(output.code, Some(0), "{program} {arguments:?}: {output}");
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn rsync(image: Image) {
    let host = image.host();
    let (here, back, there) = (fresh(&host), fresh(&host), name("rsync"));
    make_tree(&here);
    add_links(&here);
    let ssh = ssh_words(&host);
    let to = run(
        &host,
        "rsync",
        &[
            "-a",
            "-e",
            &ssh,
            &format!("{}/", text(&here)),
            &far(&host, &there),
        ],
        &[],
    );
    if image != Image::Debian {
        // rsync passes on what ssh ended with only where that was there in time.
        assert!(matches!(to.code, Some(12 | 127)), "{to}");
        assert!(to.errors().starts_with("podspawn: "), "{to}");
        let asked = host.ssh("rsync --server -logDtpre.iLsfxCIvu . there").run();
        assert_eq!(asked.code, Some(127), "{asked}");
        assert!(asked.complaint().contains("package rsync"), "{asked}");
        return;
    }
    assert_eq!((to.code, to.errors()), (Some(0), String::new()));
    run_ok(
        &host,
        "rsync",
        &[
            "-a",
            "-e",
            &ssh,
            &far(&host, &format!("{there}/")),
            text(&back),
        ],
        &[],
    );
    assert_eq!(tree(&back), tree(&here));
    // Nothing is left to do.
    let again = run_ok(
        &host,
        "rsync",
        &[
            "-ai",
            "--checksum",
            "-e",
            &ssh,
            &format!("{}/", text(&here)),
            &far(&host, &there),
        ],
        &[],
    );
    assert_eq!(again.text(), "");
}

fn git(image: Image) {
    if image != Image::Debian {
        return;
    }
    let host = image.host();
    let (here, there) = (fresh(&host), name("repo.git"));
    let ssh = ssh_words(&host);
    let environment = [
        ("GIT_SSH_COMMAND", ssh.as_str()),
        ("GIT_AUTHOR_NAME", "a"),
        ("GIT_AUTHOR_EMAIL", "a@b"),
        ("GIT_COMMITTER_NAME", "a"),
        ("GIT_COMMITTER_EMAIL", "a@b"),
    ];
    let git = |arguments: &[&str]| run_ok(&host, "git", arguments, &environment);
    assert_eq!(
        host.ssh(format!("git init -q --bare -b main {there}"))
            .run()
            .code,
        Some(0)
    );
    let work = here.join("work");
    make_tree(&work);
    let work = text(&work);
    git(&["init", "-q", "-b", "main", work]);
    git(&["-C", work, "add", "."]);
    git(&["-C", work, "commit", "-q", "-m", "one"]);
    git(&["-C", work, "push", "-q", &far(&host, &there), "main"]);
    let clone = here.join("clone");
    git(&["clone", "-q", &far(&host, &there), text(&clone)]);
    git(&["-C", text(&clone), "fsck", "--strict"]);
    let head = |dir: &str| git(&["-C", dir, "rev-parse", "HEAD"]).line();
    assert_eq!(head(work), head(text(&clone)));
    assert_eq!(
        git(&["-C", text(&clone), "status", "--porcelain"]).line(),
        ""
    );
}

fn tar(image: Image) {
    if image == Image::Scratch {
        return;
    }
    let host = image.host();
    let (here, back, there) = (fresh(&host), fresh(&host), name("tar"));
    make_tree(&here);
    add_links(&here);
    let ssh = ssh_words(&host);
    let target = client::target(&host);
    let (here_text, back_text) = (text(&here), text(&back));
    let script = format!(
        "set -e; tar -C {here_text} -cf - . | {ssh} {target} 'mkdir {there} && tar -C {there} -xpf -'; \
         {ssh} {target} 'tar -C {there} -cf - .' | tar -C {back_text} -xpf -"
    );
    run_ok(&host, "bash", &["-o", "pipefail", "-c", &script], &[]);
    assert_eq!(tree(&back), tree(&here));
}

fn sshfs(image: Image) {
    if fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_err()
    {
        return skip("/dev/fuse is not open to users");
    }
    let host = image.host();
    let (here, mount) = (fresh(&host), fresh(&host));
    make_tree(&here);
    let command = ssh_words_unquoted(&host);
    let dir = name("sshfs");
    let target = far(&host, "");
    run_ok(
        &host,
        "sshfs",
        &[
            &target,
            text(&mount),
            "-o",
            &format!("ssh_command={command}"),
        ],
        &[],
    );
    let there = mount.join(&dir);
    let copied = run(&host, "cp", &["-rp", text(&here), text(&there)], &[]);
    let found = copied.code.map(|_| tree(&there));
    let renamed = fs::rename(there.join("one"), there.join("two"));
    let removed = fs::remove_file(there.join("two"));
    let unmounted = run(&host, "fusermount3", &["-u", text(&mount)], &[]);
    assert_eq!(copied.code, Some(0), "{copied}");
    assert_eq!(found.unwrap(), tree(&here));
    assert!(
        renamed.is_ok() && removed.is_ok(),
        "{renamed:?} {removed:?}"
    );
    assert_eq!(unmounted.code, Some(0), "{unmounted}");
}

fn lftp(image: Image) {
    let host = image.host();
    let (here, back, there) = (fresh(&host), fresh(&host), name("lftp"));
    make_tree(&here);
    let ssh = ssh_words_unquoted(&host);
    let script = format!(
        "set sftp:connect-program \"{ssh} -a -x\"; set net:max-retries 1; set cmd:fail-exit yes; \
         open sftp://{}:x@127.0.0.1:{}; mirror -R {} {there}; mirror {there} {}; ls {there}; bye",
        host.user,
        host.port,
        text(&here),
        text(&back)
    );
    run_ok(
        &host,
        "lftp",
        &["--norc", "-c", &script],
        &[("HOME", text(&host.files()))],
    );
    let contents = |root: &Path| -> Vec<_> {
        let pick = |entry| match entry {
            Entry::File { digest, size, .. } => format!("{size} {digest}"),
            _ => String::new(),
        };
        tree(root)
            .into_iter()
            .map(|(path, entry)| (path, pick(entry)))
            .collect()
    };
    assert_eq!(contents(&back), contents(&here));
}

/// libssh2 of some distributions knows RSA alone, and signs with SHA-1.
fn curl(image: Image) {
    let host = Host::with_rsa(image.name());
    let (here, there) = (fresh(&host), name("curl"));
    let (file, back) = (here.join("file"), here.join("back"));
    fs::write(&file, crate::support::Noise::new(10).bytes(1_500_000)).unwrap();
    let url = format!("sftp://127.0.0.1:{}/~/{there}", host.port);
    let dir = text(&host.dir);
    let key = format!("{dir}/client_rsa");
    let login = format!("{}:", host.user);
    let common = [
        "-sS",
        "--insecure",
        "--key",
        &key,
        "--pubkey",
        &format!("{key}.pub"),
        "-u",
        &login,
    ];
    run_ok(
        &host,
        "curl",
        &[&common[..], &["-T", text(&file), &url]].concat(),
        &[],
    );
    run_ok(
        &host,
        "curl",
        &[&common[..], &["-o", text(&back), &url]].concat(),
        &[],
    );
    assert_eq!(fs::read(&back).unwrap(), fs::read(&file).unwrap());
    let ranged = run_ok(
        &host,
        "curl",
        &[&common[..], &["-r", "1000-1999", &url]].concat(),
        &[],
    );
    assert_eq!(ranged.stdout, fs::read(&file).unwrap()[1000..2000]);
}

fn python(host: &Host, script: &str, action: &str, arguments: &[&str]) -> Output {
    let path = host.files().join(name("script.py"));
    fs::write(&path, script).unwrap();
    let port = host.port.to_string();
    let common = [text(&path), text(&host.dir), &port, &host.user, action];
    run(
        host,
        "python3",
        &[&common[..], arguments].concat(),
        &[("PYTHONWARNINGS", "ignore")],
    )
}

/// One action of the paramiko client.
pub fn paramiko(host: &Host, action: &str, arguments: &[&str]) -> Output {
    python(
        host,
        include_str!("../clients/paramiko_client.py"),
        action,
        arguments,
    )
}

/// Its transcript equals that against OpenSSH's own sftp-server on this host.
fn paramiko_battery(image: Image) {
    let (host, plain) = (image.host(), Host::plain());
    let expected = paramiko(
        &plain,
        "battery",
        &[&format!("{}/{}", text(&plain.files()), name("paramiko"))],
    );
    assert_eq!(expected.code, Some(0), "{expected}");
    let found = paramiko(&host, "battery", &[&name("paramiko")]);
    let (found_text, expected_text) = (found.text(), expected.text());
    for (found, expected) in found_text.lines().zip(expected_text.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(
        found_text.lines().count(),
        expected_text.lines().count(),
        "{found}"
    );
    assert_eq!(found.code, Some(0), "{found}");
}

fn asyncssh(image: Image) {
    let host = image.host();
    let (here, back) = (fresh(&host), fresh(&host));
    make_tree(&here);
    let script = include_str!("../clients/asyncssh_client.py");
    let output = python(
        &host,
        script,
        "copy",
        &[text(&here), &name("asyncssh"), text(&back)],
    );
    assert_eq!(output.code, Some(0), "{output}");
    assert_eq!(tree(&back.join("x")), tree(&here));
}

/// Modules that need no Python on the far side: a command, and a script that goes by sftp.
fn ansible(image: Image) {
    if image == Image::Scratch {
        return;
    }
    let host = image.host();
    let here = fresh(&host);
    executable(
        &here.join("script.sh"),
        "#!/bin/sh\necho \"script $1 on $(id -un)\"\n",
    );
    let options = ssh_words(&host);
    let options = options.strip_prefix("ssh ").unwrap();
    let inventory = format!(
        "[pods]\npod ansible_host=127.0.0.1 ansible_port={} ansible_user={}\n",
        host.port, host.user
    );
    fs::write(here.join("inventory"), inventory).unwrap();
    let environment = [
        ("HOME", text(&here)),
        ("LANG", "C.UTF-8"),
        ("ANSIBLE_SSH_ARGS", options),
        ("ANSIBLE_NOCOLOR", "1"),
        ("ANSIBLE_DEPRECATION_WARNINGS", "0"),
    ];
    let inventory = here.join("inventory");
    let script = here.join("script.sh");
    let common = ["pods", "-i", text(&inventory)];
    let raw = run_ok(
        &host,
        "ansible",
        &[&common[..], &["-m", "raw", "-a", "echo \"it's $((40+2))\""]].concat(),
        &environment,
    );
    assert!(raw.text().contains("it's 42"), "{raw}");
    let sent = run_ok(
        &host,
        "ansible",
        &[
            &common[..],
            &["-m", "script", "-a", &format!("{} argument", text(&script))],
        ]
        .concat(),
        &environment,
    );
    assert!(
        sent.text()
            .contains(&format!("script argument on {}", host.user)),
        "{sent}"
    );
}
