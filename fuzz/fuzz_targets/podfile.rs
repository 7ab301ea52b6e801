//! Two Podfiles separated by a NUL byte, after one that says what the second may: the project's,
//! and the one in its workspace. What is accepted holds what the program relies on.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use podspawn::podfile::{Podfile, Rules, Source};

fuzz_target!(|data: &[u8]| {
    let Some((&may, texts)) = data.split_first() else { return };
    let mut texts = texts.splitn(2, |byte| *byte == 0);
    let Some(project) = read(texts.next().unwrap_or_default(), &Rules::ALL) else { return };
    let rules = Rules {
        host_paths: may & 1 != 0,
        images: may & 2 != 0,
        local_registries: may & 4 != 0,
        mode: may & 8 != 0,
    };
    let Some(own) = read(texts.next().unwrap_or_default(), &rules) else { return };
    let name = "work".parse().expect("a name");
    let shared: Vec<String> = project.volumes().map(str::to_owned).collect();
    let (workspace, mount) = (project.workspace.clone(), project.mount);
    let laid = own.over(project, &name);
    check(&laid);
    assert_eq!((&laid.workspace, laid.mount), (&workspace, mount));
    for volume in laid.volumes() {
        assert!(shared.iter().any(|s| s == volume) || volume.starts_with("work@"), "{volume}");
    }
});

fn read(text: &[u8], rules: &Rules) -> Option<Podfile> {
    match Podfile::read(Path::new("podfile.yaml"), text, rules) {
        Ok(podfile) => {
            check(&podfile);
            allowed(&podfile, rules);
            assert_eq!(Podfile::read(Path::new("p"), text, rules).expect("as before"), podfile);
            Some(podfile)
        }
        Err(error) => {
            let line = error.to_string();
            assert!(line.starts_with("podfile.yaml:"), "{line}");
            assert_eq!(line.lines().count(), 1, "{line:?}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
            None
        }
    }
}

fn check(podfile: &Podfile) {
    for path in podfile.shell.iter().chain(&podfile.workspace) {
        assert!(path.is_absolute());
    }
    assert!(podfile.cpus.is_none_or(|cpus| cpus.is_finite() && cpus >= 0.0));
    let mut names: Vec<_> = podfile.services.iter().map(|s| &s.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), podfile.services.len());
    for service in &podfile.services {
        // They become lines of /etc/hosts, and directories.
        assert!(service.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        assert!((1..=63).contains(&service.name.len()) && !service.ports.contains(&0));
        for volume in &service.volumes {
            assert!(volume.target.is_absolute());
            match &volume.source {
                Source::Named(name) => assert!(!name.contains('/') && !name.starts_with('.')),
                Source::Host(path) => assert!(path.is_absolute()),
            }
        }
    }
    let envs = podfile.services.iter().map(|s| &s.env).chain([&podfile.env]);
    for (name, value) in envs.flatten() {
        assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
    }
}

fn allowed(podfile: &Podfile, rules: &Rules) {
    let volumes = podfile.services.iter().flat_map(|s| &s.volumes);
    let host = volumes.filter(|v| matches!(v.source, Source::Host(_))).count();
    assert!(rules.host_paths || host == 0);
    assert!(rules.images || (podfile.image.is_none() && podfile.services.is_empty()));
    assert!(rules.mode || podfile.mode.is_none());
}
