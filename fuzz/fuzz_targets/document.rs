//! Manifests, indexes and configurations: documents separated by a NUL byte, as a registry answers
//! with them. What is accepted must be what the rest of the program relies on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podspawn_images::digest::Digest;
use podspawn_images::document::{ACCEPT, Document};
use podspawn_images::health;
use podspawn_images::limits::Limits;
use podspawn_images::platform;

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        manifest: 16 << 10,
        config: 16 << 10,
        layers: 20,
        image: 1 << 30,
        ..Limits::default()
    };
    let host = platform::parse("linux/arm/v7").expect("a platform");
    let documents: Vec<&[u8]> = data.split(|byte| *byte == 0).collect();
    for document in &documents {
        let _ = health::parse(document);
        let mut kinds = [false; 2];
        for announced in [None].into_iter().chain(ACCEPT.map(Some)) {
            match Document::parse(document, announced, &limits) {
                Ok(Document::Manifest(manifest)) => {
                    kinds[0] = true;
                    assert!(manifest.layers.len() <= limits.layers);
                    let size: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
                    assert!(size <= limits.image);
                    for config in &documents {
                        if let Ok(parsed) = manifest.parse_config(config, &limits) {
                            assert_eq!(Digest::of(config), manifest.config.digest);
                            let layers = manifest.layer_descriptors(&parsed).expect("checked");
                            assert_eq!(layers.len(), manifest.layers.len());
                        }
                    }
                }
                Ok(Document::Index(index)) => {
                    kinds[1] = true;
                    if let Ok(entry) = index.select(&host) {
                        assert!(index.manifests.contains(entry));
                    }
                }
                Err(error) => assert!(error.to_string().len() < 8000),
            }
        }
        assert!(kinds != [true, true], "one document, two meanings");
    }
});
