//! Tables of what the files may say and of what is answered when they say wrong.

use super::*;
use proptest::prelude::*;

fn apply(text: &str, source: Source) -> Result<Config, String> {
    let mut config = Config::default();
    let file = Path::new(match source {
        Source::Server => "config.yaml",
        Source::PerUser => "alice.yaml",
        Source::Own => "own.yaml",
    });
    config
        .apply(file, text.as_bytes(), source)
        .map_err(|e| e.to_string())?;
    Ok(config)
}

fn server(text: &str) -> Result<Config, String> {
    apply(text, Source::Server)
}

/// The example of upstream's manual, as an administrator may have it.
const UPSTREAM: &str = r#"
auth:
  key_dir: /etc/podspawn/keys
defaults:
  image: ubuntu:24.04
  shell: /bin/bash
  cpus: 2.0
  memory: 2g
session:
  grace_period: 60s
  max_lifetime: 8h
  mode: grace-period
state:
  db_path: /var/lib/podspawn/state.db
  lock_dir: /var/lib/podspawn/locks
  homes_dir: /var/lib/podspawn/homes
log:
  file: ""
  audit_log: ""
security:
  cap_drop: [ALL]
  cap_add:
    - CHOWN
    - NET_BIND_SERVICE
  no_new_privileges: true
  pids_limit: 256
  readonly_rootfs: false
  tmpfs: {}
  runtime: ""
resources:
  max_per_user: 3
projects_file: /etc/podspawn/projects.yaml
"#;

#[test]
fn an_error_is_one_line_whatever_the_key() {
    let error = server("\"a\\n\\u001b[2J\": 1\n").unwrap_err();
    assert!(!error.contains(char::is_control), "{error:?}");
    assert!(error.ends_with("unknown key"), "{error:?}");
}

#[test]
fn nothing_said_is_the_defaults() {
    for text in [
        "",
        "# nothing\n",
        "defaults:\n",
        "defaults: {}\nsession:\n  grace_period:\n",
        "~",
    ] {
        assert_eq!(server(text), Ok(Config::default()), "{text:?}");
    }
    let config = Config::default();
    assert_eq!(config.image.to_string(), "docker.io/library/ubuntu:24.04");
    assert_eq!(config.shell, Path::new("/bin/bash"));
    assert_eq!(config.grace_period, Duration::from_secs(60));
}

#[test]
fn every_key_that_acts() {
    let config = server(
        r#"
defaults: {image: "localhost:5000/dev@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", shell: /bin/zsh, cpus: 0.5, memory: 512m}
session: {grace_period: 1h30m, mode: persistent, max_lifetime: 0}
storage: {root: "/srv/{user}", keep_root: true}
home: host
state: {homes_dir: /srv/homes}
resources: {max_per_user: 0}
security: {pids_limit: 1000}
registries:
  certs: /etc/certs.d
  localhost:5000: {insecure: true}
  docker.io:
    mirrors: [mirror.example, "hub.example:8443/docker/"]
  registry.example:
images: {max_layer_size: 2g, max_layer_entries: 1000, max_layers: 10}
user: root
network: none
user_settings: [user]
"#,
    )
    .unwrap();
    assert!(
        config
            .image
            .to_string()
            .starts_with("localhost:5000/dev@sha256:")
    );
    assert_eq!(config.shell, Path::new("/bin/zsh"));
    assert_eq!(config.grace_period, Duration::from_secs(5400));
    assert_eq!((config.mode, config.max_lifetime), (Mode::Persistent, None));
    assert_eq!((config.home, config.keep_root), (Some(Home::Host), true));
    assert_eq!(config.homes_dir.as_deref(), Some(Path::new("/srv/homes")));
    assert_eq!((config.max_per_user, config.pids_limit), (0, 1000));
    assert_eq!((config.cpus, config.memory), (0.5, 512 << 20));
    assert_eq!(config.storage_root, UserPath::parse("/srv/{user}").ok());
    assert_eq!(
        config.registries.certs.as_deref(),
        Some(Path::new("/etc/certs.d"))
    );
    let hosts: Vec<_> = config.registries.hosts.keys().map(String::as_str).collect();
    assert_eq!(hosts, ["docker.io", "localhost:5000", "registry.example"]);
    assert!(config.registries.hosts["localhost:5000"].insecure);
    assert!(!config.registries.hosts["docker.io"].insecure);
    let mirrors = &config.registries.hosts["docker.io"].mirrors;
    assert_eq!(mirrors, &["mirror.example", "hub.example:8443/docker"]);
    let limits = &config.limits;
    assert_eq!(
        (limits.expanded, limits.entries, limits.layers),
        (2 << 30, 1000, 10)
    );
    assert_eq!(limits.manifest, Limits::default().manifest);
    assert_eq!(config.user, PodUser::Root);
    assert_eq!(config.user_settings, ["user"]);
    assert_eq!(config.unused(), []);
}

#[test]
fn a_configuration_of_upstream_carries_over() {
    let config = server(UPSTREAM).unwrap();
    let unused = |why| {
        let of = config.unused().iter().filter(move |u| u.why == why);
        of.map(|u| (u.line, u.key.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(unused(WithoutEffect::NotYet), []);
    assert_eq!(
        unused(WithoutEffect::NoMeaning),
        [
            (14, "state.db_path"),
            (15, "state.lock_dir"),
            (29, "security.runtime")
        ]
    );
}

#[test]
fn a_per_user_file_of_upstream_carries_over() {
    let text = "image: debian:12\ncpus: 4.0\nmemory: 8g\nshell: /bin/zsh\nmode: grace-period\n\
                env:\n  EDITOR: nvim\ndotfiles:\n  repo: https://example.org/d.git\n  install: ./i\n";
    let config = apply(text, Source::PerUser).unwrap();
    assert_eq!(config.image.to_string(), "docker.io/library/debian:12");
    assert_eq!(config.shell, Path::new("/bin/zsh"));
    assert_eq!((config.cpus, config.memory), (4.0, 8 << 30));
    let unused: Vec<_> = config.unused().iter().map(|u| u.key.as_str()).collect();
    assert_eq!(unused, ["env", "dotfiles.repo", "dotfiles.install"]);
}

#[test]
fn what_is_wrong_is_one_line() {
    for (text, line) in [
        // Keys.
        (
            "sesion:\n  grace_period: 1s\n",
            "config.yaml:1: sesion: unknown key; did you mean session?",
        ),
        (
            "session:\n  grace_perid: 1s\n",
            "config.yaml:2: session.grace_perid: unknown key; did you mean session.grace_period?",
        ),
        (
            "grace_period: 1s\n",
            "config.yaml:1: grace_period: unknown key; did you mean session.grace_period?",
        ),
        ("zzz: 1\n", "config.yaml:1: zzz: unknown key"),
        (
            "image: x\n",
            "config.yaml:1: image: unknown key; did you mean defaults.image?",
        ),
        ("env: {A: b}\n", "config.yaml:1: env: unknown key"),
        (
            "images:\n  alow: [x]\n",
            "config.yaml:2: images.alow: unknown key; did you mean images.allow?",
        ),
        (
            "defaults.image: x\n",
            "config.yaml:1: defaults.image: write the sections on lines of their own, \"defaults\" first",
        ),
        (
            "defaults:\n  image: a\n\n  image: b\n",
            "config.yaml:4: defaults.image: given twice, first on line 2",
        ),
        (
            "defaults: {}\nsession: {}\ndefaults: {}\n",
            "config.yaml:3: defaults: given twice, first on line 1",
        ),
        (
            "registries:\n  a.b: {}\n  a.b: {}\n",
            "config.yaml:3: registries.a.b: given twice, first on line 2",
        ),
        ("? [a]\n: b\n", "config.yaml:1: a key must be a word"),
        ("<<: {a: b}\n", "config.yaml:1: <<: unknown key"),
        // Shapes.
        (
            "defaults: 5\n",
            "config.yaml:1: defaults: a section of keys is expected",
        ),
        ("- a\n", "config.yaml:1: a section of keys is expected"),
        ("hello\n", "config.yaml:1: a section of keys is expected"),
        (
            "defaults:\n  image: [a]\n",
            "config.yaml:2: defaults.image: one value is expected, not a list",
        ),
        (
            "defaults:\n  image: {a: b}\n",
            "config.yaml:2: defaults.image: one value is expected, not a section of keys",
        ),
        (
            "security:\n  cap_drop: ALL\n",
            "config.yaml:2: security.cap_drop: a list is expected; write [ALL]",
        ),
        (
            "security:\n  cap_add:\n    - KILL\n    -\n",
            "config.yaml:4: security.cap_add: an entry of the list is empty",
        ),
        ("a: [\n", "config.yaml:1: not YAML: "),
        (
            "a: b\n---\nc: d\n",
            "config.yaml:2: a second document begins here; one is read",
        ),
        // Values.
        (
            "session:\n  grace_period: 60\n",
            "config.yaml:2: session.grace_period: \"60\" has no unit; write 60s",
        ),
        (
            "session:\n  grace_period: \"60\"\n",
            "config.yaml:2: session.grace_period: \"60\" has no unit; write 60s",
        ),
        (
            "session:\n  grace_period: soon\n",
            "config.yaml:2: session.grace_period: \"soon\" is not a duration; write one such as 60s, 5m or 1h30m",
        ),
        (
            "session:\n  mode: forever\n",
            "config.yaml:2: session.mode: \"forever\" is not known; write grace-period, destroy-on-disconnect or persistent",
        ),
        (
            "defaults:\n  image: Ubuntu\n",
            "config.yaml:2: defaults.image: \"Ubuntu\" is not an image reference: ",
        ),
        (
            "defaults:\n  shell: bash\n",
            "config.yaml:2: defaults.shell: \"bash\" is not an absolute path; begin it with /",
        ),
        (
            "defaults:\n  cpus: many\n",
            "config.yaml:2: defaults.cpus: \"many\" is not a number of processors such as 2.0",
        ),
        (
            "defaults:\n  cpus: -1\n",
            "config.yaml:2: defaults.cpus: \"-1\" is not a number of processors such as 2.0",
        ),
        (
            "defaults:\n  memory: 512\n",
            "config.yaml:2: defaults.memory: \"512\" has no unit; write k, m, g or t after it",
        ),
        (
            "storage:\n  root: ~/pods\n",
            "config.yaml:2: storage.root: \"~/pods\" is not an absolute path; begin it with /",
        ),
        (
            "storage:\n  root: /srv/../x\n",
            "config.yaml:2: storage.root: \"/srv/../x\" must not contain . or .. components",
        ),
        (
            "storage:\n  root: /srv/{name}\n",
            "config.yaml:2: storage.root: \"/srv/{name}\" has unknown braces; {user} and {uid} are known",
        ),
        (
            "images:\n  max_layers: 0\n",
            "config.yaml:2: images.max_layers: \"0\" is not a whole number from 1",
        ),
        (
            "images:\n  max_layers: 9999\n",
            "config.yaml:2: images.max_layers: at most 499 layers can be mounted",
        ),
        (
            "user: alice\n",
            "config.yaml:1: user: \"alice\" is not known; write self, image or root",
        ),
        (
            "network: host\n",
            "config.yaml:1: network: \"host\" is not known; write pasta or none",
        ),
        (
            "security:\n  no_new_privileges: yes\n",
            "config.yaml:2: security.no_new_privileges: \"yes\" is not a yes or no; write true or false",
        ),
        (
            "security:\n  no_new_privileges: \"true\"\n",
            "config.yaml:2: security.no_new_privileges: \"true\" is not a yes or no; write true or false, without quotes",
        ),
        (
            "registries:\n  docker.io:\n    insecure: 1\n",
            "config.yaml:3: registries.docker.io.insecure: \"1\" is not a yes or no; write true or false",
        ),
        (
            "registries:\n  docker.io:\n    mirror: x\n",
            "config.yaml:3: registries.docker.io.mirror: unknown key; did you mean mirrors?",
        ),
        (
            "registries:\n  docker.io:\n    mirrors:\n      - m.example\n      - https://m.example\n",
            "config.yaml:5: registries.docker.io.mirrors: \"https://m.example\" is not a mirror; write HOST, HOST:PORT or HOST/PREFIX",
        ),
        (
            "registries:\n  docker:\n    insecure: true\n",
            "config.yaml:2: registries.docker: not a registry's name; write HOST or HOST:PORT as in a reference",
        ),
        (
            "user_settings: [defaults.imge]\n",
            "config.yaml:1: user_settings: \"defaults.imge\" is no key; did you mean defaults.image?",
        ),
        (
            "user_settings:\n  - user\n  - storage.root\n",
            "config.yaml:3: user_settings: storage.root cannot be left to users",
        ),
    ] {
        let error = server(text).expect_err(text);
        // The wording of a syntax error is the parser's, that of a reference the library's.
        let open = line.ends_with(": ") && error.starts_with(line) && error.len() > line.len();
        assert!(
            open || error == line,
            "{text:?}\n  gave     {error}\n  expected {line}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_long_value_is_cut() {
    let error = server(&format!("user: {}\n", "é".repeat(1000))).unwrap_err();
    assert!(error.len() < 250, "{error}");
}

#[test]
fn a_per_user_file_has_short_names_once() {
    let error = |text| apply(text, Source::PerUser).unwrap_err();
    assert_eq!(
        error("image: a\ndefaults:\n  image: b\n"),
        "alice.yaml:3: defaults.image: given twice, first on line 1"
    );
    assert_eq!(
        error("projects_file: /x\n"),
        "alice.yaml:1: projects_file: concerns the whole host; set it in config.yaml"
    );
    assert_eq!(
        error("imgae: a\n"),
        "alice.yaml:1: imgae: unknown key; did you mean image?"
    );
}

#[test]
fn a_user_has_the_keys_that_the_administrator_leaves() {
    let own = |settings: &str, text: &str| {
        let mut config = server(settings).unwrap();
        config
            .apply(Path::new("own.yaml"), text.as_bytes(), Source::Own)
            .map_err(|e| e.to_string())
    };
    assert_eq!(
        own(
            "",
            "defaults: {image: a, shell: /b}\nsession: {grace_period: 1s}\n"
        ),
        Ok(())
    );
    let left = "set by the administrator; left to users: \
                defaults.image, defaults.shell, session.grace_period";
    for (text, key) in [
        ("storage: {root: /x}\n", "storage.root"),
        ("registries: {docker.io: {insecure: true}}\n", "registries"),
        ("user: root\n", "user"),
        ("user_settings: [user]\n", "user_settings"),
        ("projects_file: /x\n", "projects_file"),
        ("images: {max_layers: 1}\n", "images.max_layers"),
    ] {
        assert_eq!(own("", text), Err(format!("own.yaml:1: {key}: {left}")));
    }
    assert_eq!(
        own("user_settings: []\n", "defaults: {image: a}\n"),
        Err(
            "own.yaml:1: defaults.image: set by the administrator; nothing is left to users".into()
        )
    );
    assert_eq!(own("user_settings: [user]\n", "user: root\n"), Ok(()));
    assert!(own("", "image: a\n").unwrap_err().contains("unknown key"));
}

#[test]
fn each_key_is_listed_once_and_no_key_is_a_section_of_another() {
    for (n, a) in KEYS.iter().chain(PER_USER).enumerate() {
        for (m, b) in KEYS.iter().chain(PER_USER).enumerate() {
            assert!(
                n == m || (a.name != b.name && !is_section_of(a.name, b.name)),
                "{}",
                a.name
            );
        }
    }
    assert!(
        SHORT
            .iter()
            .all(|(_, long)| KEYS.iter().any(|k| k.name == *long))
    );
}

proptest! {
    #[test]
    fn any_bytes_are_understood_or_refused_in_one_line(bytes: Vec<u8>) {
        let mut config = Config::default();
        if let Err(error) = config.apply(Path::new("f"), &bytes, Source::Server) {
            prop_assert!(error.line.is_some());
        }
    }

    #[test]
    fn any_value_of_any_key_is_understood_or_refused_at_its_line(
        key in prop::sample::select(KEYS.iter().map(|k| k.name).collect::<Vec<_>>()),
        value in "[-a-z0-9A-Z:/.{}\\[\\], \"'~_]{0,20}",
        before in 0usize..5,
    ) {
        let mut text = "#\n".repeat(before);
        for (depth, part) in key.split('.').enumerate() {
            text.push_str(&format!("{}{}{part}:", if depth > 0 { "\n" } else { "" }, "  ".repeat(depth)));
        }
        text.push_str(&format!(" {value}\n"));
        let mut config = Config::default();
        if let Err(error) = config.apply(Path::new("f"), text.as_bytes(), Source::Server) {
            let last = before + key.split('.').count();
            let line = error.line.unwrap();
            prop_assert!(line > before && line <= last + 1, "{error} in {text:?}");
        }
    }
}

#[test]
fn the_defaults_that_the_manual_names_are_those() {
    let mut checked = 0;
    for key in KEYS.iter().filter(|k| k.without_effect.is_none()) {
        let Some((_, default)) = key.about.rsplit_once("Default: ") else {
            continue;
        };
        let default = default
            .trim_end_matches('.')
            .split(", the most")
            .next()
            .unwrap();
        if default.starts_with('$') {
            continue;
        }
        let mut text = String::new();
        for (depth, part) in key.name.split('.').enumerate() {
            text.push_str(&format!(
                "{}{}{part}:",
                if depth > 0 { "\n" } else { "" },
                "  ".repeat(depth)
            ));
        }
        text.push_str(&format!(" {default}\n"));
        assert_eq!(server(&text), Ok(Config::default()), "{text}");
        checked += 1;
    }
    assert!(checked >= 8);
}
