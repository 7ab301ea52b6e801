//! The grammar, by example and by property.

use super::*;
use proptest::prelude::*;

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn canonical(text: &str) -> String {
    text.parse::<Reference>().unwrap().to_string()
}

fn reason(text: &str) -> Reason {
    text.parse::<Reference>().unwrap_err().reason()
}

#[test]
fn short_names_get_the_defaults() {
    for (text, expected) in [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("Docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("library/ubuntu", "docker.io/library/ubuntu:latest"),
        ("bob/tool", "docker.io/bob/tool:latest"),
        ("a/b/c", "docker.io/a/b/c:latest"),
        ("localhost", "docker.io/library/localhost:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("localhost/x", "localhost/x:latest"),
        ("LOCALHOST/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("host:5000/x:1", "host:5000/x:1"),
        ("GHCR.io/a/b:1", "ghcr.io/a/b:1"),
        ("Registry/a", "Registry/a:latest"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
        ("[::1]:5000/x:t", "[::1]:5000/x:t"),
        ("[2001:DB8::1]/x:t", "[2001:db8::1]/x:t"),
        ("x:_Tag.-", "docker.io/library/x:_Tag.-"),
        ("a__b--c.d_e", "docker.io/library/a__b--c.d_e:latest"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn a_digest_replaces_the_default_tag_but_not_a_given_one() {
    let pinned = format!("ubuntu@{SHA}").parse::<Reference>().unwrap();
    assert_eq!(pinned.tag(), None);
    assert_eq!(
        pinned.to_string(),
        format!("docker.io/library/ubuntu@{SHA}")
    );
    assert_eq!(
        canonical(&format!("ubuntu:24.04@{SHA}")),
        format!("docker.io/library/ubuntu:24.04@{SHA}")
    );
    let other: Reference = "ghcr.io/a:1".parse().unwrap();
    let other = other.with_digest(SHA.parse().unwrap());
    assert_eq!(other.to_string(), format!("ghcr.io/a@{SHA}"));
}

#[test]
fn what_the_grammar_forbids_is_refused_with_its_rule() {
    assert_eq!(reason(""), Reason::Empty);
    for text in [
        "-h.x/a",
        "h-.x/a",
        "h..x/a",
        "h.x:/a",
        "h.x:0/a",
        "h.x:65536/a",
        "h.x:80a/a",
        "h.x:+80/a",
        "[::1/a.b",
        "[::g]/a",
        "[:::]/a",
        "[::1]5000/a",
        "[::1%lo]/a.b",
        "user@h.x:1/a",
        "h_x.y/a",
        "hö.x/a",
    ] {
        let reason = reason(text);
        assert!(
            matches!(reason, Reason::Registry | Reason::Digest),
            "{text}: {reason:?}"
        );
    }
    for text in ["Ubuntu", "a/B", "h.x/A:1"] {
        assert_eq!(reason(text), Reason::UpperCase, "{text}");
    }
    for text in [
        "/a",
        "a/",
        "a//b",
        "a.",
        ".a",
        "_a",
        "a..b",
        "a___b",
        "a._b",
        "a-_b",
        "a b",
        "a\n",
        "h.x/",
        "../a",
        "a/../b",
        "ä",
        "https://h.x/a",
        "a?b",
        "a#b",
        "a%2fb",
    ] {
        let reason = reason(text);
        assert!(
            matches!(reason, Reason::Repository | Reason::Registry | Reason::Tag),
            "{text:?}: {reason:?}"
        );
    }
    for text in ["a:", "a:.x", "a:-x", "a:x/y:z", "a:x y", "a:ü", "a:b:c"] {
        assert!(
            matches!(reason(text), Reason::Tag | Reason::Registry),
            "{text}"
        );
    }
    for text in [
        "a@sha256:00",
        "a@md5:d41d8cd98f00b204e9800998ecf8427e",
        "a@",
        &format!("a@{}", SHA.to_uppercase()),
        &format!("a@{SHA}0"),
        &format!("a@{SHA}@{SHA}"),
    ] {
        assert_eq!(reason(text), Reason::Digest, "{text}");
    }
    assert_eq!(reason(&SHA[7..]), Reason::Identifier);
}

#[test]
fn lengths_are_bounded() {
    let tag = "t".repeat(TAG_MAX);
    assert!(format!("a:{tag}").parse::<Reference>().is_ok());
    assert_eq!(reason(&format!("a:{tag}t")), Reason::Tag);
    // The limit is on the canonical name: docker.io/library/ counts.
    let name = "n".repeat(NAME_MAX - "docker.io/library/".len());
    assert!(name.parse::<Reference>().is_ok());
    assert_eq!(reason(&format!("{name}n")), Reason::TooLong);
}

#[test]
fn errors_quote_and_shorten_what_was_given() {
    let error = format!("\u{1b}[2J{}", "A".repeat(5000))
        .parse::<Reference>()
        .unwrap_err()
        .to_string();
    assert!(!error.contains('\u{1b}') && error.len() < 400, "{error}");
}

fn host() -> impl Strategy<Value = String> {
    let name = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?(\\.[a-z0-9]{1,5}){1,3}";
    let v6 = any::<[u8; 16]>().prop_map(|b| format!("[{}]", Ipv6Addr::from(b)));
    (
        prop_oneof![
            name.prop_map(|h| h),
            v6,
            Just("localhost".to_owned()),
            Just("10.0.0.1".to_owned())
        ],
        proptest::option::of(1..=u16::MAX),
    )
        .prop_map(|(host, port)| match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        })
}

fn path() -> impl Strategy<Value = String> {
    let component = "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}";
    proptest::collection::vec(component, 1..4).prop_map(|parts| parts.join("/"))
}

proptest! {
    #[test]
    fn what_the_grammar_allows_parses_and_keeps_its_parts(
        host in proptest::option::of(host()),
        path in path(),
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"),
        digest in proptest::option::of("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"),
    ) {
        prop_assume!(host.is_some() || path.len() != 64);
        let mut text = String::new();
        if let Some(host) = &host {
            text = format!("{host}/");
        }
        text += &path;
        if let Some(tag) = &tag {
            text += &format!(":{tag}");
        }
        if let Some(digest) = &digest {
            text += &format!("@{digest}");
        }
        // `localhost/…` as a path would be a registry.
        prop_assume!(host.is_some() || !path.starts_with("localhost/"));
        prop_assume!(host.is_some() || !path.split('/').next().unwrap().contains('.')
            || !path.contains('/'));
        let reference: Reference = text.parse().unwrap();
        match &host {
            Some(host) => prop_assert_eq!(reference.registry(), host.to_ascii_lowercase()),
            None => prop_assert_eq!(reference.registry(), DEFAULT_REGISTRY),
        }
        prop_assert!(reference.repository().ends_with(&path));
        if tag.is_some() || digest.is_some() {
            prop_assert_eq!(reference.tag(), tag.as_deref());
        } else {
            prop_assert_eq!(reference.tag(), Some("latest"));
        }
        prop_assert_eq!(reference.digest().map(ToString::to_string), digest);
        let again: Reference = reference.to_string().parse().unwrap();
        prop_assert_eq!(again, reference);
    }

    #[test]
    fn anything_that_parses_is_canonical_and_safe_in_a_url(text in "[-a-zA-Z0-9_./:@%\\[\\] é]{0,60}|\\PC{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            let shown = reference.to_string();
            prop_assert_eq!(shown.parse::<Reference>().unwrap(), reference.clone());
            prop_assert!(shown.bytes().all(|b| b.is_ascii_graphic()));
            prop_assert!(!shown.contains(['?', '#', '%', '\\']));
            prop_assert!(!reference.repository().split('/').any(|c| c == ".." || c == "." || c.is_empty()));
            prop_assert!(reference.tag().is_some() || reference.digest().is_some());
        }
    }

    #[test]
    fn one_bad_byte_in_a_repository_is_refused(path in path(), at in any::<prop::sample::Index>(), bad in "[A-Z ?#%&=+~!$,;'\\\\\"<>|é\\x00-\\x1f]") {
        let at = at.index(path.len() + 1);
        let text = format!("h.x/{}{bad}{}", &path[..at], &path[at..]);
        prop_assert!(text.parse::<Reference>().is_err());
    }
}
