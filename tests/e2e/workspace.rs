//! Workspaces: files that outlive pods, and the Podfile among them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::client;
use crate::support::host::Host;
use crate::tests;

tests![
    what_is_in_a_workspace_outlives_the_pod,
    what_is_changed_in_a_copy_stays_in_the_pod,
    a_kept_root_keeps_its_copy,
    a_workspace_below_a_kept_home,
    a_podfile_that_is_uploaded_makes_the_next_pod,
    a_mistake_in_it_keeps_nobody_out,
    a_link_in_its_place_leads_nowhere,
    it_says_no_more_than_users_may,
    a_workspace_that_is_a_link_is_refused,
];

const LIMIT: Duration = Duration::from_secs(30);

/// A host whose pod `default` is made by this Podfile of the administrator's.
fn host(podfile: &str) -> Host {
    let host = Host::with_loaded("busybox", "");
    host.podfile(podfile);
    host
}

/// Where the workspace is on the host.
fn kept(host: &Host) -> PathBuf {
    host.storage().join("workspaces/default")
}

/// Ends the pod; the next session makes another.
#[track_caller]
fn end(host: &Host) {
    let stopped = host.run(["stop", "default"]);
    assert_eq!(stopped.code, Some(0), "{stopped}");
    host.wait_until_empty(LIMIT);
}

/// One of OpenSSH's clients, up to the names.
fn openssh(host: &Host, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(client::options(host))
        .arg(format!("-oPort={}", host.port));
    client::clean(&mut command);
    command.current_dir(host.files());
    command
}

/// Puts a file into the directory where sessions begin, or a path below it.
fn upload(host: &Host, program: &str, text: &str, to: &str) {
    let file = host.files().join("upload");
    fs::write(&file, text).unwrap();
    let mut command = openssh(host, program);
    let mut input = Vec::new();
    if program == "sftp" {
        command.args(["-b", "-"]).arg(client::target(host));
        input = format!("put {} {to}\n", file.display()).into_bytes();
    } else {
        command
            .arg(&file)
            .arg(format!("{}:{to}", client::target(host)));
    }
    let output = client::run(command, input, LIMIT);
    assert_eq!(output.code, Some(0), "{program}: {output}");
}

fn what_is_in_a_workspace_outlives_the_pod() {
    let host = host("mount: bind\n");
    let made = host.ssh("pwd; stat -c '%U %a' .; echo mine >file; mkdir -p a/b; touch /tmp/gone");
    let expected = format!("/workspace/default\n{} 755", host.user);
    assert_eq!(made.run().line(), expected);
    assert_eq!(
        fs::read_to_string(kept(&host).join("file")).unwrap(),
        "mine\n"
    );
    end(&host);
    let look = "cat file; ls -d a/b; stat -c %U file; test -e /tmp/gone || echo fresh";
    let expected = format!("mine\na/b\n{}\nfresh", host.user);
    assert_eq!(host.ssh(look).run().line(), expected);
    for supervisor in host.supervisors() {
        supervisor.kill();
    }
    host.wait_until_empty(LIMIT);
    assert_eq!(host.ssh(look).run().line(), expected);

    // It goes when that is asked for, and not before.
    let refused = host.run(["rm", "--clean", "default"]);
    assert_eq!(refused.code, Some(125), "{refused}");
    let removed = host.run(["rm", "--force", "default"]);
    assert_eq!(removed.line(), "default");
    assert!(kept(&host).join("a/b").exists());
    let usage: serde_json::Value =
        serde_json::from_str(&host.run(["df", "--format", "json"]).text()).unwrap();
    assert_eq!(usage["totals"]["workspaces"]["count"], 1, "{usage}");
    assert_eq!(usage["totals"]["pods"]["count"], 0, "{usage}");
    assert_eq!(host.run(["rm", "--clean", "default"]).line(), "default");
    assert!(!kept(&host).exists());
    assert_eq!(host.ssh("ls -A").run().text(), "");
    // Without one, what is written stays in the pod.
    let removed = host.run(["rm", "--force", "--clean", "default"]);
    assert_eq!(removed.line(), "default");
    host.podfile("mount: none\nworkspace: /src\n");
    assert_eq!(host.ssh("pwd; echo x >file").run().line(), "/src");
    assert!(!kept(&host).exists());
}

fn what_is_changed_in_a_copy_stays_in_the_pod() {
    let host = host("mount: bind\n");
    let made = host.ssh("echo original >file; mkdir -p a/b; echo other >a/b/other; chmod 750 .");
    assert_eq!(made.run().code, Some(0));
    end(&host);
    host.podfile("mount: copy\nworkspace: /src\n");
    for _ in 0..2 {
        let change = "pwd; stat -c '%U %a' .; cat file a/b/other; \
                      echo changed >file; rm -r a; echo new >new; cat file; ls";
        let expected = format!(
            "/src\n{} 750\noriginal\nother\nchanged\nfile\nnew",
            host.user
        );
        assert_eq!(host.ssh(change).run().line(), expected);
        // The same pod has them.
        assert_eq!(host.ssh("cat file new").run().line(), "changed\nnew");
        let files = |name: &str| fs::read_to_string(kept(&host).join(name));
        assert_eq!(files("file").unwrap(), "original\n");
        assert_eq!(files("a/b/other").unwrap(), "other\n");
        assert!(files("new").is_err());
        end(&host);
    }
}

fn a_kept_root_keeps_its_copy() {
    let host = host("mount: copy\n");
    host.configure(
        "defaults:\n  image: podspawn-test/busybox\nnetwork: none\nstorage: {keep_root: true}\n",
    );
    assert_eq!(host.ssh("echo kept >file").run().code, Some(0));
    end(&host);
    assert_eq!(host.ssh("cat file").run().line(), "kept");
    assert_eq!(fs::read_dir(kept(&host)).unwrap().count(), 0);
}

fn a_workspace_below_a_kept_home() {
    let host = host("");
    let user = &host.user;
    host.podfile(&format!(
        "mode: persistent\nmount: bind\nworkspace: /home/{user}/web\n"
    ));
    let made = host.ssh("pwd; echo in >file; echo home >~/file");
    assert_eq!(made.run().line(), format!("/home/{user}/web"));
    end(&host);
    assert_eq!(host.ssh("cat file ~/file").run().line(), "in\nhome");
    let homes = host.storage().join("pods/default/home");
    assert!(!homes.join("web/file").exists() && kept(&host).join("file").exists());
}

fn a_podfile_that_is_uploaded_makes_the_next_pod() {
    let host = host("mount: bind\nenv: {FROM: project, BOTH: project}\n");
    let first = host.ssh("echo $FROM $BOTH; mkdir .podspawn");
    assert_eq!(first.run().line(), "project project");
    let podfile = "mount: none
workspace: /elsewhere
env: {FROM: 'workspace of ${PODSPAWN_PROJECT}'}
services:
  - name: side
    image: podspawn-test/busybox
    command: [httpd, -f, -p, '8080', -h, /etc]
    ports: [8080]
    volumes: ['data:/data']
";
    upload(&host, "scp", podfile, "/workspace/default/podfile.yaml");
    // A pod that is there stays as it is.
    assert_eq!(host.ssh("echo $FROM $BOTH").run().line(), "project project");
    end(&host);
    let look =
        "echo $FROM, $BOTH; pwd; wget -qO- http://side:8080/hosts | grep -qw side && echo there";
    let expected = "workspace of default, project\n/workspace/default\nthere";
    let output = host.ssh(look).limit(120).run();
    assert_eq!(output.line(), expected, "{output}\n{}", host.log());
    assert_eq!(output.errors(), "");
    // What it calls data is this pod's alone.
    assert!(host.storage().join("volumes/default@data").exists());
    // The other place is for those who want none of it in sight.
    end(&host);
    fs::remove_file(kept(&host).join("podfile.yaml")).unwrap();
    assert_eq!(host.ssh("echo $FROM").run().line(), "project");
    let other = ".podspawn/podfile.yaml";
    upload(
        &host,
        "sftp",
        podfile,
        &format!("/workspace/default/{other}"),
    );
    end(&host);
    let output = host.ssh("echo $FROM").limit(120).run();
    assert_eq!(output.line(), "workspace of default");
    let removed = host.run(["rm", "--force", "--clean", "default"]);
    assert_eq!(removed.line(), "default");
    assert!(!host.storage().join("volumes/default@data").exists());
}

fn a_mistake_in_it_keeps_nobody_out() {
    let host = host("mount: bind\nenv: {FROM: project}\n");
    let wrong = "env: {FROM: workspace}\npackages: [git]\n";
    let path = "/workspace/default/podfile.yaml";
    upload(&host, "sftp", wrong, path);
    end(&host);
    let output = host.ssh("echo $FROM").run();
    assert_eq!(output.code, Some(0), "{output}");
    assert_eq!(output.text(), "project\n");
    assert_eq!(
        output.complaint(),
        format!(
            "podspawn: {path}:2: packages: needs an image to be built, which this version does \
             not do; put it into the image that base names; pods are made without this file \
             until it is put right"
        )
    );
    // By the way that the mistake came, and others. (Of a subsystem, sshd shows no errors.)
    for program in ["sftp", "scp"] {
        end(&host);
        upload(&host, program, "env: {FROM: workspace}\n", path);
        end(&host);
        let output = host.ssh("echo $FROM").run();
        assert_eq!(
            (output.line(), output.errors()),
            ("workspace".into(), String::new())
        );
        fs::write(kept(&host).join("podfile.yaml"), wrong).unwrap();
    }
}

fn a_link_in_its_place_leads_nowhere() {
    let host = host("mount: bind\n");
    let secret = host.dir.join("secret.yaml");
    fs::write(&secret, "env: {LEAK: leaked}\n").unwrap();
    let secret = secret.display().to_string();
    for target in [
        "/etc/shadow",
        &secret,
        "../../config.yaml",
        "/proc/self/environ",
    ] {
        let made = host.ssh(format!("ln -sf {target} podfile.yaml"));
        assert_eq!(made.run().code, Some(0));
        end(&host);
        let output = host.ssh("echo leak=$LEAK").run();
        assert_eq!(output.text(), "leak=\n", "{target}");
        assert_eq!(
            output.complaint(),
            "podspawn: /workspace/default/podfile.yaml: a link, which is not followed there; \
             pods are made without this file until it is put right"
        );
    }
    // A pipe is not waited for, and a directory is none.
    for made in ["mkfifo podfile.yaml", "mkdir podfile.yaml"] {
        let made = host.ssh(format!("rm -rf podfile.yaml; {made}"));
        assert_eq!(made.run().code, Some(0));
        end(&host);
        let output = host.ssh("echo in").run();
        assert_eq!(output.text(), "in\n");
        let line = output.complaint();
        assert!(line.contains("podfile.yaml: not a regular file"), "{line}");
    }
}

fn it_says_no_more_than_users_may() {
    let host = host("mount: bind\n");
    let said = |podfile: &str| {
        upload(&host, "scp", podfile, "/workspace/default/podfile.yaml");
        end(&host);
        let output = host.ssh("echo in").run();
        assert_eq!(
            (output.code, output.text()),
            (Some(0), "in\n".into()),
            "{output}"
        );
        output.errors()
    };
    let volume = "services: [{name: a, image: b, volumes: ['/etc:/x']}]\n";
    assert!(
        said(volume).contains("is a path of the host"),
        "{}",
        said(volume)
    );
    let mode = said("mode: persistent\n");
    assert!(
        mode.contains("mode: the mode is chosen by the administrator"),
        "{mode}"
    );
    let near = said("base: 'localhost:3000/x'\n");
    assert!(near.contains("the host's own network"), "{near}");
    // Less than the limit, not more.
    assert_eq!(said("resources: {memory: 64g}\n"), "");
    let limits = host.run(["inspect", "default"]).text();
    assert!(
        limits.contains("2147483648") || limits.contains("2g"),
        "{limits}"
    );
    assert_eq!(said("resources: {memory: 512m}\n"), "");
    let limits = host.run(["inspect", "default"]).text();
    assert!(
        limits.contains("536870912") || limits.contains("512m"),
        "{limits}"
    );
    let text = fs::read_to_string(host.dir.join("config.yaml")).unwrap();
    host.configure(&format!("{text}user_settings: [defaults.shell]\n"));
    let image = said("base: debian\n");
    assert!(
        image.contains("base: images are chosen by the administrator"),
        "{image}"
    );
}

fn a_workspace_that_is_a_link_is_refused() {
    let host = host("mount: bind\n");
    let outside = host.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("podfile.yaml"), "env: {LEAK: leaked}\n").unwrap();
    fs::create_dir_all(host.storage().join("workspaces")).unwrap();
    for mount in ["bind", "copy"] {
        host.podfile(&format!("mount: {mount}\n"));
        symlink(&outside, kept(&host)).unwrap();
        let refused = host.ssh("touch file; echo $LEAK").run();
        assert_eq!(refused.code, Some(125), "{refused}");
        let line = refused.complaint();
        assert!(line.contains("cannot prepare the workspace"), "{line}");
        fs::remove_file(kept(&host)).unwrap();
        host.wait_until_empty(LIMIT);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}
