//! The three files of the configuration, separated by NUL bytes: for everybody, for one user, the
//! user's own. What is accepted holds what the program relies on, and a user decides no more than
//! was left to them.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use podspawn::config::{Config, Reach, KEYS, Source};

fuzz_target!(|data: &[u8]| {
    let mut config = Config::default();
    let sources = [Source::Server, Source::PerUser, Source::Own];
    for (source, text) in sources.into_iter().zip(data.split(|byte| *byte == 0)) {
        let before = config.clone();
        if let Err(error) = config.apply(Path::new("file.yaml"), text, source) {
            let line = error.to_string();
            assert!(line.starts_with("file.yaml:"), "{line}");
            assert_eq!(line.lines().count(), 1, "{line:?}");
            if let Some(at) = error.line {
                assert!(at >= 1 && at <= text.len() + 1);
            }
            return;
        }
        check(&config);
        // As it was, in whatever order it is said again.
        let mut again = before.clone();
        again.apply(Path::new("file.yaml"), text, source).expect("as before");
        assert_eq!(again, config);
        if source == Source::Own {
            left_to_users(&before, &config);
        }
    }
});

fn check(config: &Config) {
    assert!(config.shell.is_absolute() && config.key_dir.is_absolute());
    for dir in [&config.homes_dir, &config.system_cache].into_iter().flatten() {
        assert!(dir.is_absolute(), "{}", dir.display());
    }
    assert!(config.cpus.is_finite() && config.cpus >= 0.0);
    for name in &config.user_settings {
        let key = KEYS.iter().find(|key| key.name == *name).expect("a known key");
        assert_eq!(key.reach, Reach::User, "{name}");
    }
    for unused in config.unused() {
        assert!(unused.line >= 1);
    }
}

/// Where little is left to users, nothing else has changed.
fn left_to_users(before: &Config, after: &Config) {
    let usual = Config::default().user_settings;
    assert_eq!(before.user_settings, after.user_settings);
    if before.user_settings != usual {
        return;
    }
    let mut expected = before.clone();
    expected.image = after.image.clone();
    expected.shell = after.shell.clone();
    expected.grace_period = after.grace_period;
    assert_eq!(&expected, after);
}
