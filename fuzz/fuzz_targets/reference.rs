//! Image references, registries, platforms and patterns of `images.allow`: what a user or an
//! administrator writes, and what an archive claims. Each on a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podspawn_images::digest::Digest;
use podspawn_images::platform;
use podspawn_images::policy::{Pattern, Policy};
use podspawn_images::reference::{Reference, canonical_registry};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut references: Vec<Reference> = Vec::new();
    let mut patterns: Vec<Pattern> = Vec::new();
    for line in text.split('\n') {
        match line.parse::<Reference>() {
            Ok(reference) => {
                let shown = reference.to_string();
                assert_eq!(shown.parse::<Reference>().as_ref(), Ok(&reference), "{shown}");
                assert!(shown.is_ascii() && !shown.contains("//"));
                // A tag may have them, but not at its beginning.
                assert!(!shown.contains("/.") && !shown.contains(":."));
                assert!(!reference.repository().contains(".."));
                references.push(reference);
            }
            Err(error) => assert!(error.to_string().len() < 1000),
        }
        if let Ok(host) = canonical_registry(line) {
            assert_eq!(canonical_registry(&host).as_deref(), Ok(host.as_str()));
        }
        if let Ok(digest) = line.parse::<Digest>() {
            assert_eq!(Digest::from_file_name(&digest.file_name()), Some(digest));
        }
        let _ = platform::parse(line);
        patterns.extend(line.parse::<Pattern>());
    }
    for reference in &references {
        let any = patterns.iter().any(|pattern| pattern.allows(reference));
        let policy = Policy::only(patterns.clone());
        assert_eq!(policy.check(reference).is_ok(), any);
        // What is allowed by its digest as a file is allowed by it from a registry.
        if let Some(digest) = reference.digest()
            && policy.check_content(Some(reference), digest).is_ok()
        {
            assert!(any, "{reference}");
        }
    }
});
