use super::service::Volume;
use super::*;
use proptest::prelude::*;

/// A user's own on a host where users choose all they may.
const USER: Rules = Rules {
    host_paths: false,
    images: true,
    local_registries: true,
    mode: true,
};

fn read(text: &str, rules: &Rules) -> Result<Podfile, String> {
    Podfile::read(Path::new("podfile.yaml"), text.as_bytes(), rules).map_err(|e| e.to_string())
}

#[test]
fn a_whole_podfile_is_understood() {
    let text = "
base: registry.example/team/dev:1
name: web
shell: /bin/zsh
workspace: /workspace/web
mode: destroy-on-disconnect
mount: none
resources: {cpus: 1.5, memory: 512m}
env: {DATABASE_URL: 'postgres://postgres@postgres/app', WHO: '${PODSPAWN_USER} of ${PODSPAWN_PROJECT}'}
ports: {strategy: auto, expose: [3000]}
services:
  - name: postgres
    image: postgres:17
    ports: [5432, '15432:5432']
    env: {POSTGRES_PASSWORD: secret}
    volumes: ['pgdata:/var/lib/postgresql/data', '/srv/init:/init:ro']
    ready: pg_isready
  - name: redis
    image: redis
    command: [redis-server, --appendonly, 'yes']
";
    let podfile = read(text, &Rules::ALL).unwrap();
    assert_eq!(podfile.shell, Some("/bin/zsh".into()));
    assert_eq!(podfile.workspace, Some("/workspace/web".into()));
    assert_eq!(podfile.mode, Some(Mode::DestroyOnDisconnect));
    assert_eq!((podfile.cpus, podfile.memory), (Some(1.5), Some(512 << 20)));
    let [postgres, redis] = podfile.services.as_slice() else {
        panic!("{podfile:?}")
    };
    assert_eq!(postgres.ports, [5432, 5432]);
    assert_eq!(postgres.ready.as_deref(), Some("pg_isready"));
    assert_eq!(
        postgres.volumes[0],
        Volume {
            source: Source::Named("pgdata".into()),
            target: "/var/lib/postgresql/data".into(),
            read_only: false
        }
    );
    assert_eq!(postgres.volumes[1].source, Source::Host("/srv/init".into()));
    assert!(postgres.volumes[1].read_only);
    assert_eq!(redis.command, ["redis-server", "--appendonly", "yes"]);
    assert_eq!(
        Podfile::expanded(&podfile.env, "alice", "web")[1],
        "WHO=alice of web"
    );
    assert_eq!(read("", &USER).unwrap(), Podfile::default());
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, expected) in [
        (
            "bse: x\n",
            "podfile.yaml:1: bse: unknown field; did you mean base?",
        ),
        (
            "base: debian\npackages: [git]\n",
            "podfile.yaml:2: packages: needs an image to be built, which this version does not do; put it into the image that base names",
        ),
        (
            "shell: zsh\n",
            "podfile.yaml:1: shell: \"zsh\" is not an absolute path; begin it with /",
        ),
        (
            "mode: persistant\n",
            "podfile.yaml:1: mode: \"persistant\" is not known; write grace-period, destroy-on-disconnect or persistent",
        ),
        (
            "resources: {cpus: 1, ram: 1g}\n",
            "podfile.yaml:1: resources.ram: unknown field",
        ),
        (
            "workspace: /\nmount: bind\n",
            "podfile.yaml:2: mount: needs a workspace of its own, not /; leave workspace out or name another",
        ),
        (
            "mount: link\n",
            "podfile.yaml:1: mount: \"link\" is not known; write none, bind or copy",
        ),
        (
            "services:\n  - name: db\n",
            "podfile.yaml:2: services.0: a service needs the field image",
        ),
        (
            "services:\n  - {name: db, image: a}\n  - {name: db, image: b}\n",
            "podfile.yaml:3: services.1: a second service is called \"db\"",
        ),
        (
            "services:\n  - {name: DB, image: a}\n",
            "podfile.yaml:2: services.0.name: \"DB\" cannot be a host name; use a-z, 0-9 and - inside, at most 63",
        ),
        (
            "services:\n  - name: db\n    image: a\n    volumes: [data]\n",
            "podfile.yaml:4: services.0.volumes: \"data\" is not a volume; write NAME:/path or /host/path:/path, with :ro after it if it is only read",
        ),
        (
            "services:\n  - name: db\n    image: a\n    ports: [70000]\n",
            "podfile.yaml:4: services.0.ports: \"70000\" is not a TCP port",
        ),
        (
            "env: {1X: y}\n",
            "podfile.yaml:1: env.1X: not the name of a variable; use letters, digits and _",
        ),
        (
            "services: \"\\e[2J\"\n",
            "podfile.yaml:1: services: a list is expected; write [\\u{1b}[2J]",
        ),
        (
            "env: [a]\n",
            "podfile.yaml:1: env: a section of keys is expected",
        ),
    ] {
        assert_eq!(read(text, &USER).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn only_the_administrator_names_paths_of_the_host() {
    let text = "services:\n  - {name: db, image: a, volumes: ['/home/alice:/x']}\n";
    assert!(read(text, &Rules::ALL).is_ok());
    let refused = read(text, &USER).unwrap_err();
    assert!(
        refused.contains("only the administrator's Podfiles"),
        "{refused}"
    );
    for odd in [
        "/a/../b:/x",
        "../x:/y",
        "a:x",
        "a:/",
        "a:/x:y",
        ":/x",
        "a b:/x",
        "a:/../x",
    ] {
        let text = format!("services:\n  - {{name: db, image: a, volumes: ['{odd}']}}\n");
        assert!(read(&text, &Rules::ALL).is_err(), "{odd}");
    }
}

/// One in the workspace, where the administrator chooses images and the mode.
const NOTHING: Rules = Rules {
    host_paths: false,
    images: false,
    local_registries: false,
    mode: false,
};

#[test]
fn what_is_left_to_the_administrator_is_named() {
    let image = "images are chosen by the administrator; leave it out";
    for (text, key, problem) in [
        ("base: debian\n", "base", image),
        (
            "services: [{name: a, image: b}]\n",
            "services.0.image",
            image,
        ),
        (
            "mode: persistent\n",
            "mode",
            "the mode is chosen by the administrator; leave it out",
        ),
    ] {
        let expected = format!("podfile.yaml:1: {key}: {problem}");
        assert_eq!(read(text, &NOTHING).unwrap_err(), expected);
        assert!(read(text, &USER).is_ok());
    }
    assert!(
        read(
            "shell: /bin/sh\nenv: {A: b}\nresources: {cpus: 1}\n",
            &NOTHING
        )
        .is_ok()
    );
}

#[test]
fn a_workspace_names_no_registry_of_the_hosts_network() {
    let rules = Rules {
        local_registries: false,
        ..USER
    };
    for local in [
        "localhost:3000/x",
        "localhost/x",
        "127.0.0.1:80/x",
        "127.1:80/x",
        "0x7f.0x1:80/x",
        "[::1]:80/x",
        "registry:5000/x",
        "a.localhost:80/x",
        "169.254.169.254:80/x",
    ] {
        let text = format!("base: '{local}'\n");
        let refused = read(&text, &rules).unwrap_err();
        assert!(refused.contains("the host's own network"), "{refused}");
        assert!(read(&text, &USER).is_ok(), "{local}");
    }
    for public in ["debian", "ghcr.io/a/b", "registry.example:5000/x"] {
        assert!(read(&format!("base: {public}\n"), &rules).is_ok());
    }
}

#[test]
fn one_podfile_over_another() {
    let below = read(
        "base: debian
workspace: /src
mount: bind
shell: /bin/zsh
mode: persistent
env: {A: project, B: project}
resources: {cpus: 1}
services:
  - {name: db, image: postgres, volumes: ['pgdata:/data', '/srv/x:/x']}
  - {name: cache, image: redis}
",
        &Rules::ALL,
    );
    let own = read(
        "base: alpine
workspace: /elsewhere
mount: none
env: {B: own, C: own}
services:
  - {name: db, image: mysql, volumes: ['pgdata:/data', 'other:/other']}
  - {name: mail, image: mailpit}
",
        &USER,
    );
    let name = "web".parse().unwrap();
    let both = own.unwrap().over(below.unwrap(), &name);
    assert_eq!(both.image.as_ref().unwrap().repository(), "library/alpine");
    assert_eq!(both.workspace_of(&name), Some("/src".into()));
    assert_eq!(both.mount, Some(Mount::Bind));
    assert_eq!(both.shell, Some("/bin/zsh".into()));
    assert_eq!(both.mode, Some(Mode::Persistent));
    assert_eq!((both.cpus, both.memory), (Some(1.0), None));
    assert_eq!(
        Podfile::expanded(&both.env, "alice", "web"),
        ["A=project", "B=own", "C=own"]
    );
    let names: Vec<&str> = both.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["db", "cache", "mail"]);
    assert_eq!(both.services[0].image.repository(), "library/mysql");
    // The project's own, and one that no other pod has.
    assert_eq!(both.volumes().collect::<Vec<_>>(), ["pgdata", "web@other"]);
}

#[test]
fn a_kept_workspace_has_a_place() {
    let name = "web".parse().unwrap();
    let at = |text| read(text, &USER).unwrap().workspace_of(&name);
    assert_eq!(at("mount: copy\n"), Some("/workspace/web".into()));
    assert_eq!(at("mount: bind\nworkspace: /src\n"), Some("/src".into()));
    assert_eq!(at("mount: none\nworkspace: /src\n"), Some("/src".into()));
    assert_eq!(at("mount: none\n"), None);
    assert_eq!(at(""), None);
}

proptest! {
    #[test]
    fn anything_like_a_podfile_is_read_or_refused(
        text in "(base|env|services|name|ports): ?[a-z0-9:/\\-\\[\\]{}, '\n]{0,120}"
    ) {
        let _ = read(&text, &USER);
    }
}
