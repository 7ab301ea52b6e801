//! Registries that want a password or have a private certificate, and what the administrator
//! allows.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::client::{self, Output};
use crate::support::host::Host;
use crate::support::terminal::Terminal;
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    a_login_is_kept_and_a_logout_forgets_it,
    a_login_at_the_terminal_shows_no_password,
    a_wrong_password_is_refused_and_not_kept,
    a_login_needs_somebody_to_ask,
    a_login_keeps_to_the_file_that_is_named,
    a_private_certificate_is_believed_where_certs_says_so,
    an_image_that_is_not_allowed_is_refused_everywhere,
    a_pull_shows_what_its_reader_can_take,
];

const LIMIT: Duration = Duration::from_secs(60);

fn private() -> (String, String) {
    let registry = setup::get().private.clone();
    let reference = format!("{registry}/private/busybox:1");
    (registry, reference)
}

fn with_input(host: &Host, arguments: &[&str], input: &str) -> Output {
    client::run(host.podspawn(arguments), input.into(), LIMIT)
}

fn log_in(host: &Host, password: &str, more: &[&str]) -> Output {
    let (registry, _) = private();
    let mut arguments = vec![
        "login",
        &registry,
        "--username",
        "alice",
        "--password-stdin",
    ];
    arguments.extend(more);
    with_input(host, &arguments, &format!("{password}\n"))
}

fn auth_file(host: &Host) -> PathBuf {
    host.dir.join("config/containers/auth.json")
}

fn a_login_is_kept_and_a_logout_forgets_it() {
    let (registry, reference) = private();
    let host = Host::empty(&reference);
    let login = log_in(&host, "secret", &[]);
    assert_eq!(login.code, Some(0), "{login}");
    assert!(login.stdout.is_empty(), "{login}");
    let said = login.complaint();
    assert!(said.contains(&registry) && said.contains("alice"), "{said}");
    assert_eq!(
        fs::metadata(auth_file(&host)).unwrap().mode() & 0o7777,
        0o600
    );
    // Docker's and podman's own format.
    let text = fs::read_to_string(auth_file(&host)).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(kept["auths"][&registry]["auth"], "YWxpY2U6c2VjcmV0");

    // Not only a command uses it.
    let session = host.ssh("echo in").limit(120).run();
    assert_eq!(session.line(), "in");

    let logout = host.run(["logout", &registry]);
    assert_eq!(logout.code, Some(0), "{logout}");
    let host = Host::empty(&reference);
    let refused = host.run(["pull", &reference]);
    assert_eq!(refused.code, Some(125), "{refused}");
    let line = refused.complaint();
    assert!(
        line.contains(&format!("podspawn login {registry}")),
        "{line}"
    );
    let again = host.run(["logout", &registry]);
    assert_eq!(again.code, Some(125), "{again}");
    assert!(again.complaint().contains("nobody is logged in"), "{again}");
}

fn a_login_at_the_terminal_shows_no_password() {
    let (registry, reference) = private();
    let host = Host::empty(&reference);
    let mut terminal = Terminal::open(host.podspawn(["login", &registry]));
    terminal.expect("Username: ");
    terminal.send("alicx\x7fe\r");
    terminal.expect("Password: ");
    terminal.send("secret\r");
    terminal.expect("logged in");
    assert!(terminal.wait().success());
    let shown = terminal.raw();
    assert!(
        shown.contains("alic") && !shown.contains("secret"),
        "{shown:?}"
    );
    assert!(auth_file(&host).exists());

    let mut terminal = Terminal::open(host.podspawn(["login", &registry, "-u", "alice"]));
    terminal.expect("Password: ");
    terminal.send("sec\x03");
    assert_eq!(terminal.wait().code(), Some(125));
}

fn a_wrong_password_is_refused_and_not_kept() {
    let (registry, reference) = private();
    let host = Host::empty(&reference);
    let output = log_in(&host, "wrong-password-42", &[]);
    assert_eq!(output.code, Some(125), "{output}");
    let line = output.complaint();
    assert!(line.contains(&registry) && line.contains("401"), "{line}");
    assert!(!line.contains("wrong-password-42"), "{line}");
    assert!(!auth_file(&host).exists());
    let nobody = with_input(
        &host,
        &["login", "127.0.0.1:9", "-u", "a", "--password-stdin"],
        "b",
    );
    assert_eq!(nobody.code, Some(125), "{nobody}");
    assert!(nobody.complaint().contains("127.0.0.1:9"), "{nobody}");
}

fn a_login_needs_somebody_to_ask() {
    let (registry, reference) = private();
    let host = Host::empty(&reference);
    // `setsid` leaves the terminal of whoever runs the tests.
    let mut command = Command::new("setsid");
    let login = host.podspawn(["login", &registry]);
    command
        .arg("--wait")
        .arg(login.get_program())
        .args(login.get_args());
    client::clean(&mut command);
    let output = client::run(command, Vec::new(), LIMIT);
    assert_eq!(output.code, Some(125), "{output}");
    assert!(output.complaint().contains("--password-stdin"), "{output}");
    for (arguments, word) in [
        (&["login", &registry, "--password-stdin"][..], "--username"),
        (
            &["login", &registry, "-u", "a:b", "--password-stdin"],
            "user name",
        ),
        (
            &["login", &registry, "-u", "a", "--password-stdin"],
            "empty",
        ),
        (&["login", &registry, "--system"], "root"),
        (&["login", "Not A Registry"], "registry"),
        (&["login", &registry, "--password", "x"], "--password"),
    ] {
        let output = with_input(&host, arguments, "\n");
        assert_eq!(output.code, Some(125), "{output}");
        assert!(output.complaint().contains(word), "{word}: {output}");
    }
}

fn a_login_keeps_to_the_file_that_is_named() {
    let (registry, reference) = private();
    let host = Host::empty(&reference);
    let file = host.dir.join("mine.json");
    let named = file.to_str().unwrap();
    let output = log_in(&host, "secret", &["--authfile", named]);
    assert_eq!(output.code, Some(0), "{output}");
    assert!(file.exists() && !auth_file(&host).exists());
    assert_eq!(host.run(["pull", "--quiet", &reference]).code, Some(125));
    let pulled = host.run(["pull", "--quiet", "--authfile", named, &reference]);
    assert!(pulled.line().starts_with("sha256:"), "{pulled}");
    let mut command = host.podspawn(["logout", &registry]);
    command.env("REGISTRY_AUTH_FILE", &file);
    let output = client::run(command, Vec::new(), LIMIT);
    assert_eq!(output.code, Some(0), "{output}");
    assert!(!fs::read_to_string(&file).unwrap().contains(&registry));
    // The administrator's file, for every user who may read it.
    let output = log_in(&host, "secret", &["--authfile", named]);
    assert_eq!(output.code, Some(0), "{output}");
    host.configure(&format!("registries:\n  auth: {named}\n"));
    let pulled = host.run(["pull", "--quiet", &reference]);
    assert!(pulled.line().starts_with("sha256:"), "{pulled}");
}

/// A registry behind TLS, with the images of the open one.
struct Secured {
    process: Child,
    port: u16,
}

impl Secured {
    fn start(host: &Host) -> Self {
        let dir = &host.dir;
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            command.args(arguments.split(' ')).current_dir(dir);
            let output = client::run(command, Vec::new(), LIMIT);
            assert_eq!(output.code, Some(0), "openssl {arguments}: {output}");
        };
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        openssl(&format!(
            "{new} -subj /CN=test-ca -keyout ca.key -out ca.crt"
        ));
        openssl(&format!(
            "{new} -subj /CN=127.0.0.1 -keyout server.key -out server.crt -CA ca.crt -CAkey ca.key \
             -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:false"
        ));
        for _ in 0..5 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let config = format!(
                "version: 0.1\nlog: {{accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {storage}}}}}\n\
                 http: {{addr: \"127.0.0.1:{port}\", \
                 tls: {{certificate: {dir}/server.crt, key: {dir}/server.key}}}}\n",
                storage = setup::get().registry_storage.display(),
                dir = dir.display(),
            );
            fs::write(dir.join("registry.yml"), config).unwrap();
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(dir.join("registry.yml"))
                .env("OTEL_TRACES_EXPORTER", "none")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut ended = false;
            wait_for("the registry starts", LIMIT, || {
                ended = process.try_wait().unwrap().is_some();
                ended || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            });
            if !ended {
                return Self { process, port };
            }
        }
        panic!("the registry does not start");
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn a_private_certificate_is_believed_where_certs_says_so() {
    let host = Host::empty("x");
    let registry = Secured::start(&host);
    let name = format!("127.0.0.1:{}", registry.port);
    let reference = format!("{name}/podspawn/busybox:1");
    let output = host.run(["pull", &reference]);
    assert_eq!(output.code, Some(125), "{output}");
    let line = output.complaint();
    assert!(line.contains(&format!("certs.d/{name}/ca.crt")), "{line}");
    let certs = host.dir.join("certs.d");
    fs::create_dir_all(certs.join(&name)).unwrap();
    fs::copy(host.dir.join("ca.crt"), certs.join(&name).join("ca.crt")).unwrap();
    host.configure(&format!("registries:\n  certs: {}\n", certs.display()));
    let output = host.run(["pull", "--quiet", &reference]);
    assert!(output.line().starts_with("sha256:"), "{output}");
    // And a login goes the same way.
    let login = ["login", &name, "-u", "alice", "--password-stdin"];
    let output = with_input(&host, &login, "secret");
    assert_eq!(output.code, Some(0), "{output}");
    assert!(output.complaint().contains("untried"), "{output}");
}

fn an_image_that_is_not_allowed_is_refused_everywhere() {
    let registry = &setup::get().registry;
    let (allowed, other) = (Host::reference("busybox"), Host::reference("alpine-like"));
    let host = Host::with_image("alpine-like");
    host.configure(&format!(
        "defaults:\n  image: {other}\nimages:\n  allow: [\"{registry}/podspawn/busy*\"]\n"
    ));
    let layout = setup::get().stage.join("images/busybox");
    let layout = layout.to_str().unwrap();
    for arguments in [
        &["pull", &other][..],
        &["pull", "docker.io/library/ubuntu"],
        &["load", layout, "--name", &allowed],
    ] {
        let output = host.run(arguments);
        assert_eq!(output.code, Some(125), "{output}");
        assert!(output.complaint().contains("images.allow"), "{output}");
    }
    // It is there, and no session gets it all the same.
    let session = host.ssh("true").run();
    assert_eq!(session.code, Some(125), "{session}");
    let line = session.complaint();
    assert!(
        line.contains("images.allow") && line.contains(&other),
        "{line}"
    );
    let pulled = host.run(["pull", "--quiet", &allowed]);
    let digest = pulled.line();
    host.configure(&format!("images:\n  allow: [{digest}]\n"));
    let loaded = host.run(["load", "--quiet", layout]);
    assert_eq!(loaded.line(), digest);
}

fn a_pull_shows_what_its_reader_can_take() {
    let reference = Host::reference("debian");
    let host = Host::empty(&reference);
    let piped = host.run(["pull", &reference]);
    assert_eq!(piped.code, Some(0), "{piped}");
    let digest = piped.text().trim_end().to_owned();
    assert!(
        digest.starts_with("sha256:") && digest.len() == 71,
        "{piped}"
    );
    let lines = piped.errors();
    assert!(
        lines.contains(&reference) && lines.contains("6 layers"),
        "{piped}"
    );
    assert!(
        lines.lines().filter(|l| l.ends_with(" done")).count() >= 6,
        "{piped}"
    );
    assert!(!lines.contains('\x1b'), "{piped}");

    let quiet = Host::empty(&reference).run(["pull", "--quiet", &reference]);
    assert_eq!(quiet.line(), digest);

    let json = Host::empty(&reference).run(["pull", "--format", "json", &reference]);
    assert_eq!(
        (json.code, json.errors()),
        (Some(0), String::new()),
        "{json}"
    );
    let text = json.text();
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let events: Vec<serde_json::Value> = events.collect();
    let done = events.iter().filter(|e| e["state"] == "done").count();
    assert_eq!((done, &events[0]["event"]), (6, &"layers".into()));
    let last = events.last().unwrap();
    assert_eq!(
        (&last["event"], &last["digest"]),
        (&"image".into(), &digest.clone().into())
    );

    let host = Host::empty(&reference);
    let mut terminal = Terminal::open(host.podspawn(["pull", &reference]));
    assert!(terminal.wait().success());
    let raw = terminal.raw();
    assert!(raw.contains("of 6 layers") && raw.contains("/s"), "{raw:?}");
    // Where the lines were, which are gone.
    assert!(raw.trim_end().ends_with(&*digest), "{raw:?}");
}
