//! Auth files that anything may have written: looking credentials up, logging in and out. The
//! first byte chooses whose they are to be.
#![no_main]

mod jail;

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use jail::Jail;
use libfuzzer_sys::fuzz_target;
use podspawn_images::credentials::{Credential, CredentialSources, Scope, Secret, erase, has, lookup, store};

static JAIL: LazyLock<Jail> = LazyLock::new(Jail::new);

fuzz_target!(|data: &[u8]| {
    let Some((&choice, text)) = data.split_first() else {
        return;
    };
    let registry = ["docker.io", "h.x", "h.x:5000", "[::1]:5000"][usize::from(choice) % 4];
    let path = ["", "team/app"][usize::from(choice >> 4) % 2];
    let text = text.to_vec();
    JAIL.run(move || {
        let file = PathBuf::from("/auth.json");
        fs::write(&file, &text).expect("write");
        let sources = CredentialSources {
            files: vec![file.clone()],
            ..CredentialSources::default()
        };
        let scope = Scope { registry, path };
        let _ = has(&file, scope);
        let repository = "team/app/x";
        let before = lookup(&sources, registry, repository);
        let Ok(_) = store(&sources, &file, scope, "fuzz", &Secret::new("p:w")) else {
            // It is left as it was.
            assert_eq!(fs::read(&file).expect("read"), text);
            return;
        };
        match lookup(&sources, registry, repository) {
            Ok(Some((Credential::Password { username, password }, _))) => {
                // An entry of a longer path goes before it.
                if username == "fuzz" {
                    assert_eq!(password.expose(), "p:w");
                } else {
                    assert!(matches!(before, Ok(Some(_))));
                }
            }
            // Another entry that is more particular, and perhaps damaged.
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => panic!("what was stored is not found"),
        }
        assert!(has(&file, scope));
        erase(&sources, &file, scope).expect("it could be read before");
        assert_eq!(fs::read_dir("/").expect("ls").count(), 1);
    });
});
