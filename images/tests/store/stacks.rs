//! Images: what overlay shows of layers that were made one by one.

use std::fs;

use podspawn_images::layer::Compression;
use podspawn_images::store::StoreError;

use super::Place;
use super::common::archive::{Entry, dir, file, hard_link, symlink, tar};
use super::common::layout::{Built, Layer};
use super::common::root;
use super::common::snapshot::{Node, Tree, merged, name, names};

/// What an image of these layers shows, and how many lower directories it has.
fn show(layers: impl IntoIterator<Item = Vec<Entry>>) -> (Tree, usize) {
    let place = Place::new();
    let image = Built::of(layers.into_iter().map(tar));
    let image = place.commit(&image, &["test"]).unwrap();
    (merged(&image.layers), image.layers.len())
}

fn at<'a>(tree: &'a Tree, path: &str) -> &'a Node {
    tree.get(&name(path.as_bytes()))
        .unwrap_or_else(|| panic!("no {path}: {:?}", names(tree)))
}

fn content(tree: &Tree, path: &str, content: &str) -> bool {
    at(tree, path).content == super::Digest::of(content.as_bytes()).to_string()
}

fn base() -> Vec<Entry> {
    vec![
        dir("srv")
            .mode(0o2775)
            .owner(33, 34)
            .at(1_500_000_000, 5)
            .xattr("user.site", "main"),
        dir("srv/www")
            .mode(0o700)
            .owner(35, 36)
            .at(1_500_000_001, 6),
        file("srv/www/index", "hello")
            .mode(0o640)
            .owner(1, 2)
            .at(9, 9),
        file("srv/www/other", "bye"),
    ]
}

#[test]
fn directories_that_are_not_stated_keep_what_they_had() {
    if !root() {
        return;
    }
    let (tree, lowers) = show([base(), vec![file("srv/www/new", "x")]]);
    assert_eq!(lowers, 3);
    let node = at(&tree, "srv");
    assert_eq!(
        (node.mode, node.owner, node.mtime),
        (0o2775, (33, 34), (1_500_000_000, 5))
    );
    assert_eq!(node.xattrs["user.site"], b"main");
    let node = at(&tree, "srv/www");
    assert_eq!(
        (node.mode, node.owner, node.mtime),
        (0o700, (35, 36), (1_500_000_001, 6))
    );
    assert_eq!(
        names(&tree),
        [
            "srv",
            "srv/www",
            "srv/www/index",
            "srv/www/new",
            "srv/www/other"
        ]
    );

    // A whiteout implies its directory as much as a file does, and so does an opaque mark, which
    // hides the content of a directory but not the directory.
    let (tree, _) = show([
        base(),
        vec![file("srv/www/.wh.index", "")],
        vec![file("srv/www/.wh..wh..opq", ""), file("srv/www/only", "")],
    ]);
    assert_eq!(
        (at(&tree, "srv").mode, at(&tree, "srv/www").owner),
        (0o2775, (35, 36))
    );
    assert_eq!(names(&tree), ["srv", "srv/www", "srv/www/only"]);
}

#[test]
fn stating_a_directory_needs_no_fixup() {
    if !root() {
        return;
    }
    let stated = vec![
        dir("./").mode(0o755),
        dir("srv").mode(0o711),
        dir("srv/www").mode(0o2711),
        file("srv/www/new", "x"),
    ];
    let (tree, lowers) = show([base(), stated.clone()]);
    assert_eq!((lowers, at(&tree, "srv").mode), (2, 0o711));
    // Nor does implying one that a layer above states, or that is nowhere stated.
    let (_, lowers) = show([
        base(),
        vec![file("srv/www/a", ""), file("new/dir/x", "")],
        stated,
    ]);
    assert_eq!(lowers, 3);
}

#[test]
fn what_is_new_has_nothing_of_what_was() {
    if !root() {
        return;
    }
    for replaced in [
        // Removed by a layer in between.
        vec![vec![file(".wh.srv", "")], vec![file("srv/www/new", "x")]],
        // Removed and made anew by one and the same layer.
        vec![vec![file(".wh.srv", ""), file("srv/www/new", "x")]],
        vec![vec![file("srv/www/new", "x"), file(".wh.srv", "")]],
        // Replaced by something that is no directory, in between.
        vec![vec![symlink("srv", "/")], vec![file("srv/www/new", "x")]],
        vec![vec![file("srv", "x")], vec![file("srv/www/new", "x")]],
    ] {
        let (tree, _) = show([vec![base()], replaced].concat());
        assert_eq!(names(&tree), ["srv", "srv/www", "srv/www/new"]);
        for path in ["srv", "srv/www"] {
            assert_eq!(
                (at(&tree, path).mode, at(&tree, path).owner),
                (0o755, (0, 0))
            );
            assert!(at(&tree, path).xattrs.is_empty());
        }
    }
}

#[test]
fn hard_links_into_earlier_layers_are_the_same_file() {
    if !root() {
        return;
    }
    let (tree, _) = show([
        base(),
        vec![
            dir("srv").mode(0o755),
            hard_link("srv/copy", "srv/www/index"),
            hard_link("copy", "srv/copy"),
            hard_link("gone", "srv/www/other"),
        ],
        vec![file("srv/www/.wh.other", ""), hard_link("third", "copy")],
    ]);
    for path in ["srv/copy", "copy", "third", "srv/www/index"] {
        let node = at(&tree, path);
        assert!(content(&tree, path, "hello"), "{path}");
        assert_eq!(
            (node.mode, node.owner, node.mtime),
            (0o640, (1, 2), (9, 9)),
            "{path}"
        );
        assert_eq!(node.links, 4, "{path}");
    }
    // Its target is gone, and it is not.
    assert!(content(&tree, "gone", "bye") && at(&tree, "gone").links == 1);
    assert_eq!(
        names(&tree),
        [
            "copy",
            "gone",
            "srv",
            "srv/copy",
            "srv/www",
            "srv/www/index",
            "third"
        ]
    );
    assert_eq!(
        (at(&tree, "srv").mode, at(&tree, "srv/www").mode),
        (0o755, 0o700)
    );
}

#[test]
fn hard_links_that_do_not_show_leave_no_trace() {
    if !root() {
        return;
    }
    for last in [
        vec![file(".wh.d", "")],
        vec![file("d/.wh.link", "")],
        vec![file("d/.wh..wh..opq", "")],
        vec![file("d", "x")],
    ] {
        let (tree, _) = show([
            base(),
            vec![dir("d"), hard_link("d/link", "srv/www/index")],
            last,
        ]);
        assert!(!tree.contains_key(&name(b"d/link")));
    }
    let over = vec![file("d/link", "another")];
    let (tree, _) = show([base(), vec![hard_link("d/link", "srv/www/index")], over]);
    assert!(content(&tree, "d/link", "another"));
    // A directory where the link was has nothing of what was there before the link.
    let (tree, _) = show([
        vec![dir("d/link"), file("d/link/old", ""), file("f", "")],
        vec![hard_link("d/link", "f")],
        vec![dir("d/link"), file("d/link/new", "")],
    ]);
    assert_eq!(names(&tree), ["d", "d/link", "d/link/new", "f"]);
}

#[test]
fn hard_links_to_links_and_pipes_and_holes() {
    if !root() {
        return;
    }
    let mut holes = vec![0; 3 << 20];
    holes[1 << 20] = 1;
    let (tree, _) = show([
        vec![
            symlink("s", "nowhere"),
            Entry::new(b'6', "p").mode(0o600),
            file("h", &holes),
        ],
        vec![
            hard_link("s2", "s"),
            hard_link("p2", "p"),
            hard_link("h2", "h"),
        ],
    ]);
    assert_eq!(
        (at(&tree, "s2").kind, at(&tree, "s2").content.as_str()),
        ('l', "nowhere")
    );
    assert_eq!((at(&tree, "p2").kind, at(&tree, "p2").mode), ('p', 0o600));
    assert_eq!(at(&tree, "h2").content, at(&tree, "h").content);
}

#[test]
fn hard_links_that_lead_nowhere_are_refused() {
    for (target, why) in [
        ("nothing", "no layer"),
        ("srv", "directory"),
        ("srv/www/none", "no layer"),
    ] {
        let place = Place::new();
        let image = Built::of([tar([dir("srv")]), tar([hard_link("l", target)])]);
        let error = place.commit(&image, &["test"]).unwrap_err();
        assert!(matches!(error, StoreError::HardLink { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(
            (place.list("images").len(), place.list("refs").len()),
            (0, 0)
        );
        assert_eq!(place.list("tmp"), [""; 0]);
    }
}

#[test]
fn whiteouts_of_nothing_do_not_show() {
    if !root() {
        return;
    }
    let (tree, _) = show([
        vec![
            dir("bottom").mode(0o700),
            file("bottom/.wh.never", ""),
            file("bottom/x", ""),
            file(".wh.top", ""),
        ],
        vec![
            dir("new"),
            file("new/.wh.never", ""),
            file("new/deep/.wh.never", ""),
        ],
        vec![file("opaque/.wh..wh..opq", ""), file("opaque/.wh.x", "")],
    ]);
    assert_eq!(
        names(&tree),
        ["bottom", "bottom/x", "new", "new/deep", "opaque"]
    );
    assert_eq!(at(&tree, "bottom").mode, 0o700);
}

#[test]
fn an_opaque_root_hides_everything_below() {
    if !root() {
        return;
    }
    let (tree, _) = show([
        base(),
        vec![file(".wh..wh..opq", ""), file("alone", "x")],
        vec![file("top", "")],
    ]);
    assert_eq!(names(&tree), ["alone", "top"]);
}

#[test]
fn a_layer_may_come_twice() {
    if !root() {
        return;
    }
    let (one, two) = (
        vec![file("a", "1"), file("d/x", "1")],
        vec![file("a", "2"), file(".wh.d", "")],
    );
    let (tree, _) = show([one.clone(), two.clone(), one.clone()]);
    assert!(content(&tree, "a", "1") && content(&tree, "d/x", "1"));
    let (tree, _) = show([one.clone(), two.clone(), two.clone(), one, two]);
    assert!(content(&tree, "a", "2"));
    assert_eq!(names(&tree), ["a"]);
}

#[test]
fn an_image_without_layers_is_an_empty_directory() {
    let place = Place::new();
    let image = place.commit(&Built::of([]), &["test"]).unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(super::list(&image.layers[0]), [""; 0]);
    if root() {
        assert!(names(&merged(&image.layers)).is_empty());
    }
}

#[test]
fn what_a_path_is_may_change_between_layers() {
    if !root() {
        return;
    }
    let kinds = |path: &'static str| -> Vec<Vec<Entry>> {
        vec![
            vec![dir(path).mode(0o700), file(format!("{path}/inside"), "x")],
            vec![file(path, "now a file")],
            vec![symlink(path, "/")],
            vec![Entry::new(b'6', path)],
            vec![file(format!(".wh.{path}"), "")],
        ]
    };
    for (i, first) in kinds("p").into_iter().enumerate() {
        for (j, second) in kinds("p").into_iter().enumerate() {
            let (tree, _) = show([first.clone(), second]);
            let shown = names(&tree);
            match j {
                0 => assert_eq!(shown, ["p", "p/inside"], "{i} then {j}"),
                4 => assert_eq!(shown, [""; 0], "{i} then {j}"),
                _ => assert_eq!(shown, ["p"], "{i} then {j}"),
            }
            let kind = ['d', 'f', 'l', 'p', '-'][j];
            assert!(kind == '-' || at(&tree, "p").kind == kind, "{i} then {j}");
        }
    }
}

#[test]
fn a_hundred_and_twenty_layers_mount() {
    if !root() {
        return;
    }
    let layers = (0..120).map(|n| {
        let mut entries = vec![
            file(format!("d/{n}"), format!("{n}")),
            file("last", format!("{n}")),
        ];
        if n % 10 == 9 {
            entries.push(file(format!("d/.wh.{}", n - 1), ""));
        }
        entries
    });
    let (tree, _) = show(layers);
    assert_eq!(names(&tree).len(), 2 + 120 - 12);
    assert!(content(&tree, "last", "119"));
}

#[test]
fn the_same_layer_serves_images_that_differ_below() {
    if !root() {
        return;
    }
    let place = Place::new();
    let shared = Layer::new(
        &tar([file("srv/x", ""), hard_link("l", "f")]),
        Compression::Gzip,
    );
    let below = |mode, content: &str| {
        Layer::new(
            &tar([dir("srv").mode(mode), file("f", content)]),
            Compression::Gzip,
        )
    };
    let first = place
        .commit(&Built::new([below(0o700, "one"), shared.clone()]), &["one"])
        .unwrap();
    let second = place
        .commit(&Built::new([below(0o711, "two"), shared]), &["two"])
        .unwrap();
    assert_eq!(place.list("layers").len(), 3);
    for (image, mode, text) in [(&first, 0o700, "one"), (&second, 0o711, "two")] {
        let tree = merged(&image.layers);
        assert_eq!(at(&tree, "srv").mode, mode);
        assert!(content(&tree, "l", text) && at(&tree, "l").links == 2);
    }
    for layer in first.layers.iter().chain(&second.layers) {
        assert!(fs::metadata(layer).unwrap().is_dir());
    }
}
