//! The manual pages in `man/` are what the help and the list of keys say.
//!
//! `PODSPAWN_WRITE_MAN=1 cargo test --test man` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use podspawn::config::{KEYS, Key, PER_USER, Reach, SHORT, WithoutEffect};
use roff::{Inline, Roff, bold, italic, roman};

#[test]
fn the_manual_is_what_the_program_says() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let made = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(podspawn::cli::Cli::command(), made.path()).unwrap();
    fs::write(made.path().join("podspawn-config.5"), configuration()).unwrap();
    fs::write(made.path().join("podspawn-podfile.5"), podfile()).unwrap();
    let made = pages(made.path());
    assert!(made.contains_key("podspawn.1") && made.contains_key("podspawn-spawn.1"));
    if std::env::var_os("PODSPAWN_WRITE_MAN").is_some() {
        fs::remove_dir_all(&kept).unwrap();
        fs::create_dir(&kept).unwrap();
        for (name, page) in &made {
            fs::write(kept.join(name), page).unwrap();
        }
    }
    let how = "run PODSPAWN_WRITE_MAN=1 cargo test --test man";
    assert!(pages(&kept) == made, "man/ differs from the program; {how}");
}

fn pages(dir: &Path) -> BTreeMap<String, String> {
    let page = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read_to_string(entry.path()).unwrap())
    };
    fs::read_dir(dir).unwrap().map(page).collect()
}

/// podspawn-config(5).
fn configuration() -> String {
    let mut page = Roff::new();
    page.control("TH", ["podspawn-config", "5", "", "podspawn", ""]);
    section(
        &mut page,
        "NAME",
        &["podspawn-config - configuration files of podspawn"],
    );
    section(&mut page, "SYNOPSIS", &[]);
    for file in [
        "/etc/podspawn/config.yaml",
        "/etc/podspawn/users/NAME.yaml",
        "~/.config/podspawn/config.yaml",
    ] {
        page.text([italic(file)]).control("br", []);
    }
    section(
        &mut page,
        "DESCRIPTION",
        &[
            "Three files in YAML, none of which must exist: the administrator's for everybody, the \
         administrator's for one user, and the user's own. Each is read over what the ones \
         before said; a list replaces a list, and a registry a registry.",
            "The administrator's files must belong to root, and nobody else may write to them. A \
         user's own file may give the keys that user_settings in the first two names.",
            "A key that is unknown or given twice, or a value that makes no sense, is an error, \
         which names the file, the line and the key; no session starts until it is put right. \
         A dot in a name below is a section in the file:",
        ],
    );
    page.control("nf", []);
    page.text([roman("session:")])
        .text([roman("  grace_period: 5m")]);
    page.control("fi", []);
    section(&mut page, "KEYS", &[]);
    list(
        &mut page,
        KEYS.iter().filter(|k| k.without_effect.is_none()),
    );
    section(
        &mut page,
        "FILES FOR ONE USER",
        &[
            "/etc/podspawn/users/NAME.yaml takes the same keys but those that concern the host, and \
         short names for some:",
        ],
    );
    for (short, long) in SHORT {
        page.control("TP", [])
            .text([bold(*short)])
            .text([roman(format!("The key {long}."))]);
    }
    section(
        &mut page,
        "KEYS WITHOUT EFFECT",
        &[
            "These are read and checked, so that existing files can be kept, but this version does \
         not act on them:",
        ],
    );
    let not_yet = |k: &&Key| k.without_effect == Some(WithoutEffect::NotYet);
    list(&mut page, KEYS.iter().filter(not_yet));
    page.control("PP", [])
        .text([roman("In files for one user:")]);
    list(&mut page, PER_USER.iter().filter(not_yet));
    page.control("PP", []);
    let never = KEYS
        .iter()
        .filter(|k| k.without_effect == Some(WithoutEffect::NoMeaning));
    let names: Vec<_> = never.map(|k| k.name).collect();
    page.text([roman(format!(
        "And these have no meaning here: {}.",
        names.join(", ")
    ))]);
    section(
        &mut page,
        "VALUES",
        &[
            "Durations are numbers with the units ms, s, m, h and d, added up: 60s, 1h30m, 1.5h. \
         Sizes are whole numbers with the unit k, m, g or t, powers of 1024: 512m, 2g.",
        ],
    );
    section(&mut page, "SEE ALSO", &[]);
    page.text([
        bold("podspawn"),
        roman("(1), "),
        bold("podspawn-spawn"),
        roman("(1)"),
    ]);
    page.to_roff()
}

/// podspawn-podfile(5).
fn podfile() -> String {
    let mut page = Roff::new();
    page.control("TH", ["podspawn-podfile", "5", "", "podspawn", ""]);
    section(
        &mut page,
        "NAME",
        &["podspawn-podfile - what a project's pod is made of"],
    );
    section(&mut page, "SYNOPSIS", &[]);
    for file in [
        "/etc/podspawn/projects.yaml",
        "~/.config/podspawn/podfiles/NAME.yaml",
    ] {
        page.text([italic(file)]).control("br", []);
    }
    section(
        &mut page,
        "DESCRIPTION",
        &[
            "The administrator's list of projects names a Podfile for each, under the key podfile, \
             by its absolute path. For a project that the list does not have, a user's own \
             podfiles/NAME.yaml is read, where user_settings lets users choose defaults.image. A \
             pod is of the project of its name; the project default is what a login without a \
             project gets.",
            "Whoever owns the Podfile decides what it may say: a user's own names no path of the \
             host, no mode unless user_settings has session.mode, and no more resources than the \
             configuration gives. A field that is unknown, a value that makes no sense, and what \
             would need an image to be built are errors with file, line and field; no session \
             starts until they are put right.",
        ],
    );
    section(
        &mut page,
        "THE PODFILE IN A WORKSPACE",
        &[
            "Where mount is bind or copy, podfile.yaml or .podspawn/podfile.yaml in the workspace \
             is laid over the Podfile above for a new pod: its fields go before, variables and \
             services are added or replaced by name; its mount, workspace, name, branch and ports \
             are checked and have no effect. What holds for a user's own Podfile holds for it. \
             Images only where user_settings has defaults.image, and none of a registry that is \
             named by an address or without a domain, unless images.allow is set; a volume that \
             the Podfile above does not name is the pod's alone. A link is not followed.",
            "A mistake in it keeps nobody out: each session says it in one line, and pods are made \
             without this file until it is put right. (sftp and scp are not told, and can bring a \
             corrected one.)",
        ],
    );
    section(&mut page, "FIELDS", &[]);
    for (name, about) in PODFILE {
        page.control("TP", [])
            .text([bold(*name)])
            .text([roman(*about)]);
    }
    section(
        &mut page,
        "SERVICES",
        &[
            "Each has a container and a network address of its own; they start side by side, and \
             reach each other, and are reached from the pod and by ssh -L, by name. A command waits \
             until all are ready, two minutes at most; a shell opens at once. A service is ready \
             once its ports accept and its ready command succeeds, or without one the health check \
             of its image (HEALTHCHECK in a Dockerfile), if that has one: a health check is tried \
             every second or at its own interval if that is shorter, and an attempt that takes \
             longer than its timeout has failed; one of ready may take 30 seconds. ready: 'true' \
             does without. One that dies is \
             started again after a pause that grows to 30 seconds: podspawn list and status show \
             it. Named volumes are the user's, outlive every pod, and go with podspawn rm --clean, \
             as workspaces do.",
        ],
    );
    section(&mut page, "EXAMPLE", &[]);
    page.control("nf", []);
    for line in [
        "base: registry.example/team/dev:1",
        "env: {DATABASE_URL: 'postgres://postgres@db/app'}",
        "services:",
        "  - name: db",
        "    image: postgres:17",
        "    ports: [5432]",
        "    env: {POSTGRES_HOST_AUTH_METHOD: trust}",
        "    volumes: ['pgdata:/var/lib/postgresql/data']",
        "    ready: pg_isready -h 127.0.0.1",
    ] {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    section(&mut page, "SEE ALSO", &[]);
    page.text([
        bold("podspawn-config"),
        roman("(5), "),
        bold("podspawn-rm"),
        roman("(1)"),
    ]);
    page.to_roff()
}

const PODFILE: &[(&str, &str)] = &[
    ("base", "The image, in the place of defaults.image."),
    (
        "name, branch, ports",
        "Checked, and without effect: every port of a pod is reached by ssh -L.",
    ),
    ("shell", "An absolute path, in the place of defaults.shell."),
    (
        "env",
        "Variables of sessions. ${PODSPAWN_USER} and ${PODSPAWN_PROJECT} stand for what they say.",
    ),
    (
        "workspace",
        "The directory where sessions begin, an absolute path; made if it is missing.",
    ),
    (
        "mount",
        "Whose files are in the workspace, which is /workspace/NAME if not given. bind: those of \
         the pods before of this name, kept beside the user's images. copy: a new pod begins with \
         them, and what it changes goes with it. none, the default: the pod's own.",
    ),
    ("mode", "In the place of session.mode."),
    (
        "resources.cpus, resources.memory",
        "In the place of defaults.cpus and defaults.memory.",
    ),
    (
        "services",
        "A list, at most 32. Each has a name, which is its host name, and an image; and may have \
         ports, TCP ports that accept once it is ready; env; command, a list in the place of the \
         image's; volumes, each NAME:/path, or /host/path:/path in an administrator's Podfile, \
         with :ro after it if it is only read; and ready, a shell command that succeeds in it once \
         it is ready, in the place of its image's health check.",
    ),
];

fn section(page: &mut Roff, title: &str, paragraphs: &[&str]) {
    page.control("SH", [title]);
    for (n, paragraph) in paragraphs.iter().enumerate() {
        if n > 0 {
            page.control("PP", []);
        }
        page.text([roman(*paragraph)]);
    }
}

fn list<'a>(page: &mut Roff, keys: impl Iterator<Item = &'a Key>) {
    for key in keys {
        let mut text: Vec<Inline> = vec![roman(key.about)];
        match key.reach {
            Reach::User => text.push(roman(" Can be left to users.")),
            Reach::Host => text.push(roman(" Not in files for one user.")),
            Reach::Administrator => {}
        }
        page.control("TP", []).text([bold(key.name)]).text(text);
    }
}
