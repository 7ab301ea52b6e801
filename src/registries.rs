//! How registries are reached: what the configuration and the environment say.
//!
//! Runs in every process that speaks to one. Where credentials are looked for, first match wins:
//!
//! 1. the file that `--authfile` or `$REGISTRY_AUTH_FILE` names, and then none of 2;
//! 2. `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json`,
//!    `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, as podman and docker do;
//! 3. the administrator's, `registries.auth`, for those whom its mode lets read it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use podspawn_images::credentials::{CredentialSources, Scope, has};
use podspawn_images::reference::canonical_registry;
use podspawn_images::registry::{HostConfig, ProxyConfig, RegistryConfig};

use crate::account::Directories;
use crate::config::Config;

/// Everything that is to be known of registries. `authfile` is what the command line names.
#[must_use]
pub fn config(
    config: &Config,
    directories: &Directories,
    authfile: Option<&Path>,
) -> RegistryConfig {
    let hosts = config.registries.hosts.iter().map(|(name, host)| {
        let host = HostConfig {
            insecure: host.insecure,
            mirrors: host.mirrors.clone(),
        };
        (name.clone(), host)
    });
    let usual = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    let variable = |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok());
    let certs = config.registries.certs.iter().cloned();
    let mut files = auth_files(directories, authfile, |name| std::env::var_os(name));
    // One that is kept from this user is not there for them.
    let shared = &config.registries.auth;
    if rustix::fs::access(shared, rustix::fs::Access::READ_OK).is_ok() {
        files.push(shared.clone());
    }
    RegistryConfig {
        hosts: hosts.collect(),
        cert_dirs: certs.chain(usual).collect(),
        proxy: ProxyConfig {
            http: variable(["http_proxy", "HTTP_PROXY"]),
            https: variable(["https_proxy", "HTTPS_PROXY"]),
            no_proxy: variable(["no_proxy", "NO_PROXY"]),
        },
        credentials: CredentialSources {
            files,
            helper_dirs: std::env::var_os("PATH")
                .map(|p| std::env::split_paths(&p).collect())
                .unwrap_or_default(),
            ..CredentialSources::default()
        },
        ..RegistryConfig::default()
    }
}

/// The user's own auth files, in the order in which they are looked at.
#[must_use]
pub fn auth_files(
    directories: &Directories,
    named: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<PathBuf> {
    let set = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(file) = named
        .map(Path::to_owned)
        .or_else(|| set("REGISTRY_AUTH_FILE"))
    {
        return vec![file];
    }
    let docker = set("DOCKER_CONFIG").unwrap_or_else(|| directories.home.join(".docker"));
    let runtime = directories.runtime.iter();
    let runtime = runtime.map(|dir| dir.join("containers/auth.json"));
    runtime
        .chain([
            directories.config.join("containers/auth.json"),
            docker.join("config.json"),
        ])
        .collect()
}

/// Which of the files a login goes into: the one that knows the registry already, because it
/// would go before another; else podman's, where it survives a reboot.
#[must_use]
pub fn file_for_login(files: &[PathBuf], directories: &Directories, scope: Scope<'_>) -> PathBuf {
    let known = files.iter().find(|file| has(file, scope));
    match (known, files) {
        (Some(file), _) | (None, [file]) => file.clone(),
        _ => directories.config.join("containers/auth.json"),
    }
}

/// A registry on the command line: as references name it, and what is below it.
///
/// # Errors
///
/// One line about the text.
pub fn parse(text: &str) -> Result<(String, String), String> {
    let wrong = || {
        format!("{text:?} is not a registry; write HOST, HOST:PORT or HOST/PATH, such as docker.io")
    };
    let bare = text
        .strip_prefix("https://")
        .unwrap_or(text)
        .trim_end_matches('/');
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    // Without a dot or a port a reference would take it for part of a repository.
    if !host.contains(['.', ':']) && host != "localhost" {
        return Err(wrong());
    }
    let host = canonical_registry(host).map_err(|_| wrong())?;
    if !path.is_empty() {
        let named = format!("{host}/{path}/x").parse::<podspawn_images::reference::Reference>();
        let fits = named.is_ok_and(|r| r.repository() == format!("{path}/x"));
        if !fits || path.contains([':', '@']) {
            return Err(wrong());
        }
    }
    Ok((host, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(variables: &[(&str, &str)]) -> Directories {
        let account = crate::account::Account {
            name: "alice".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/alice".into(),
        };
        Directories::new(&account, |name| of(variables, name))
    }

    fn of(variables: &[(&str, &str)], name: &str) -> Option<OsString> {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.into())
    }

    fn files(variables: &[(&str, &str)], named: Option<&str>) -> Vec<String> {
        let found = auth_files(&directories(variables), named.map(Path::new), |name| {
            of(variables, name)
        });
        found.iter().map(|f| f.display().to_string()).collect()
    }

    #[test]
    fn auth_files_are_those_of_podman_and_docker() {
        assert_eq!(
            files(&[("XDG_RUNTIME_DIR", "/run/user/1000")], None),
            [
                "/run/user/1000/containers/auth.json",
                "/home/alice/.config/containers/auth.json",
                "/home/alice/.docker/config.json"
            ]
        );
        assert_eq!(files(&[("DOCKER_CONFIG", "/d")], None)[1], "/d/config.json");
        assert_eq!(files(&[("REGISTRY_AUTH_FILE", "/f")], None), ["/f"]);
        assert_eq!(files(&[("REGISTRY_AUTH_FILE", "/f")], Some("/g")), ["/g"]);
    }

    #[test]
    fn a_login_goes_where_it_will_be_found_first() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let directories = directories(&[("HOME", home), ("XDG_RUNTIME_DIR", home)]);
        let list = auth_files(&directories, None, |_| None);
        let scope = Scope {
            registry: "h.x",
            path: "",
        };
        let config = dir.path().join(".config/containers/auth.json");
        assert_eq!(file_for_login(&list, &directories, scope), config);
        std::fs::create_dir(dir.path().join(".docker")).unwrap();
        std::fs::write(&list[2], r#"{"auths":{"h.x":{}}}"#).unwrap();
        assert_eq!(file_for_login(&list, &directories, scope), list[2]);
        let one = [PathBuf::from("/named")];
        assert_eq!(file_for_login(&one, &directories, scope), one[0]);
    }

    #[test]
    fn registries_are_named_as_in_references() {
        let ok = |text| parse(text).unwrap();
        assert_eq!(ok("docker.io"), ("docker.io".into(), String::new()));
        assert_eq!(
            ok("https://index.docker.io/"),
            ("docker.io".into(), String::new())
        );
        assert_eq!(
            ok("GHCR.io/acme/team"),
            ("ghcr.io".into(), "acme/team".into())
        );
        assert_eq!(ok("[::1]:5000").0, "[::1]:5000");
        for wrong in [
            "",
            "ubuntu",
            "http://h.x",
            "h.x/UP",
            "h.x/a:1",
            "h.x//a",
            "h x.y",
            "h.x/a@b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
