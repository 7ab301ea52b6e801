//! A layer that says anything, unpacked for real into a store in the jail. The first byte chooses
//! the compression and whether a second layer is under it, so that the stack is completed too.
#![no_main]

mod jail;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use jail::Jail;
use libfuzzer_sys::fuzz_target;
use podspawn_images::digest::Digest;
use podspawn_images::layer::{Compression, LayerDescriptor};
use podspawn_images::limits::Limits;
use podspawn_images::store::{Ownership, Store};

static JAIL: LazyLock<Jail> = LazyLock::new(Jail::new);

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let compression = match choice & 3 {
        0 => Compression::Gzip,
        1 => Compression::Zstd,
        _ => Compression::None,
    };
    let (first, second) = match choice & 4 {
        0 => (data, None),
        _ => {
            let (first, second) = data.split_at(data.len() / 1024 * 512);
            (first, Some(second))
        }
    };
    let blobs: Vec<Vec<u8>> = [Some(first), second].into_iter().flatten().map(<[u8]>::to_vec).collect();
    JAIL.run(move || {
        fs::create_dir("/outside").expect("mkdir");
        fs::write("/outside/canary", "sings").expect("write");
        let root = Path::new("/store");
        let store = Store::open(root, Ownership::Single).expect("a store");
        let limits = Limits {
            expanded: 1 << 20,
            entries: 300,
            memory: 2 << 20,
            pax: 1 << 12,
            ..Limits::default()
        };
        let mut layers = Vec::new();
        for blob in &blobs {
            // The content's digest is known only to who decompresses it: an inner archive is told
            // by its own, and a compressed one is bound to fail at the end.
            let layer = LayerDescriptor {
                digest: Digest::of(blob),
                size: blob.len() as u64,
                compression,
                diff_id: Digest::of(blob),
            };
            let Some(staging) = store.begin_layer(&layer.digest).expect("a staging") else {
                continue;
            };
            if staging.unpack(&blob[..], &layer, &limits, &()).is_ok() {
                layers.push(layer);
            }
        }
        if layers.len() == blobs.len() {
            let image = image(&layers);
            let name = "x".parse().expect("a name");
            let _ = store.commit_image(&image.0, &image.1, &[name]);
        }
        // What was accepted is what its fingerprint says.
        let report = store.check(&()).expect("a check");
        assert!(report.damage.is_empty() && report.unproved == 0, "{report:?}");
        drop(store);
        assert_eq!(fs::read_dir("/store/v1/tmp").expect("ls").count(), 0);
        assert_eq!(fs::read("/outside/canary").expect("read"), b"sings");
        assert_eq!(fs::read_dir("/outside").expect("ls").count(), 1);
        assert_eq!(fs::read_dir("/").expect("ls").count(), 2);
    });
});

fn image(layers: &[LayerDescriptor]) -> (Vec<u8>, Vec<u8>) {
    let diff_ids: Vec<String> = layers.iter().map(|l| format!("\"{}\"", l.diff_id)).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let layers: Vec<String> = layers
        .iter()
        .map(|layer| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}"#,
                layer.digest, layer.size
            )
        })
        .collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{}]}}"#,
        Digest::of(config.as_bytes()),
        config.len(),
        layers.join(",")
    );
    (manifest.into_bytes(), config.into_bytes())
}
