use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn pattern(text: &str) -> Pattern {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

fn allows(text: &str, reference: &str) -> bool {
    pattern(text).allows(&reference.parse().unwrap())
}

#[test]
fn names() {
    for (text, reference, expected) in [
        ("docker.io/library/ubuntu", "ubuntu", true),
        ("docker.io/library/ubuntu", "ubuntu:24.04", true),
        ("index.docker.io/library/ubuntu", "ubuntu", true),
        ("docker.io/library/ubuntu", "ubuntu2", false),
        ("docker.io/library/ubuntu", "evil/ubuntu", false),
        ("docker.io/library/*", "ubuntu", true),
        ("docker.io/library/*", "docker.io/library/a/b", false),
        ("docker.io/library/u*u", "ubuntu", true),
        ("docker.io/library/u*x", "ubuntu", false),
        ("docker.io/*", "ubuntu", false),
        ("docker.io/**", "ubuntu", true),
        ("docker.io/**/ubuntu", "ubuntu", true),
        ("docker.io/**/ubuntu", "docker.io/a/b/ubuntu", true),
        ("docker.io/library/ubuntu/**", "ubuntu", false),
        ("ghcr.io/acme/**/x", "ghcr.io/acme/x", false),
        ("*/acme/dev", "ghcr.io/acme/dev", true),
        ("*/**", "localhost:5000/anything/at/all", true),
        ("*.example.org/x", "a.example.org/x", true),
        ("*.example.org/x", "a.b.example.org/x", true),
        ("*.example.org/x", "example.org/x", false),
        ("*.example.org/x", "badexample.org/x", false),
        ("*.example.org/x", "a.example.org:5000/x", false),
        ("*.example.org:5000/x", "a.example.org:5000/x", true),
        ("*.example.org/x", "a.example.org.evil.net/x", false),
        ("GHCR.io/x", "ghcr.io/x", true),
        ("localhost/x", "localhost/x", true),
        ("[::1]:5000/x", "[::1]:5000/x", true),
        ("127.0.0.1:5000/x", "127.0.0.1:5001/x", false),
    ] {
        assert_eq!(allows(text, reference), expected, "{text} {reference}");
    }
}

#[test]
fn tags_and_digests() {
    let pinned = format!("ubuntu@sha256:{HEX}");
    let labelled = format!("ubuntu:24.04@sha256:{HEX}");
    let other = HEX.replace('e', "f");
    for (text, reference, expected) in [
        ("docker.io/library/ubuntu:24.04", "ubuntu:24.04", true),
        ("docker.io/library/ubuntu:24.*", "ubuntu:24.04", true),
        ("docker.io/library/ubuntu:24.*", "ubuntu", false),
        ("docker.io/library/ubuntu:*", "ubuntu", true),
        // With a digest the tag is a label that anybody can write.
        ("docker.io/library/ubuntu:24.04", &labelled, false),
        ("docker.io/library/ubuntu:24.04", &pinned, false),
        ("docker.io/library/ubuntu", &labelled, true),
        (
            &format!("docker.io/library/ubuntu@sha256:{HEX}"),
            &labelled,
            true,
        ),
        (&format!("docker.io/library/*@sha256:{HEX}"), &pinned, true),
        (
            &format!("docker.io/library/ubuntu@sha256:{other}"),
            &pinned,
            false,
        ),
        (
            &format!("docker.io/library/ubuntu@sha256:{HEX}"),
            "ubuntu:24.04",
            false,
        ),
        (&format!("sha256:{HEX}"), &pinned, true),
        (&format!("sha256:{HEX}"), "ubuntu", false),
        (&format!("sha256:{other}"), &pinned, false),
    ] {
        assert_eq!(allows(text, reference), expected, "{text} {reference}");
    }
}

#[test]
fn content_of_a_file_goes_by_its_digest_alone() {
    let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
    let name: Reference = "ubuntu:24.04".parse().unwrap();
    let content =
        |text: &str, name: Option<&Reference>| pattern(text).allows_content(name, &digest);
    for claimed in [
        "docker.io/library/ubuntu",
        "docker.io/library/ubuntu:24.04",
        "*/**",
    ] {
        assert!(!content(claimed, Some(&name)), "{claimed}");
    }
    assert!(content(
        &format!("docker.io/library/*@sha256:{HEX}"),
        Some(&name)
    ));
    assert!(!content(&format!("docker.io/library/*@sha256:{HEX}"), None));
    assert!(!content(&format!("ghcr.io/**@sha256:{HEX}"), Some(&name)));
    assert!(content(&format!("sha256:{HEX}"), None));
}

#[test]
fn what_is_no_pattern_is_refused() {
    for text in [
        "",
        "*",
        "**",
        "ubuntu",
        "library/ubuntu",
        "docker.io/",
        "docker.io//x",
        "/x",
        "docker.io/UP",
        "docker.io/a**",
        "docker.io/x:",
        "docker.io/x:a b",
        "docker.io/x@sha256:00",
        "docker.io/x@",
        "docker.io*/x",
        "registry.*/x",
        "*example.org/x",
        "*.*.org/x",
        "*./x",
        "http://docker.io/x",
        "a b.io/x",
        "docker.io/x\n",
        "sha256:00",
    ] {
        let error = text.parse::<Pattern>().expect_err(text).to_string();
        assert!(!error.contains('\n') && error.len() < 400, "{error}");
    }
    let both = format!("docker.io/x:1@sha256:{HEX}");
    assert!(both.parse::<Pattern>().is_err());
}

#[test]
fn a_refusal_says_what_is_allowed() {
    let ubuntu: Reference = "ubuntu".parse().unwrap();
    assert!(Policy::default().check(&ubuntu).is_ok() && Policy::default().is_open());
    let nothing = Policy::only(Vec::new());
    assert_eq!(
        nothing.check(&ubuntu).unwrap_err().to_string(),
        "images.allow, which the administrator set, does not allow \
         docker.io/library/ubuntu:latest; it allows nothing"
    );
    let some = Policy::only(vec![pattern("ghcr.io/acme/**"), pattern("quay.io/a/b:1")]);
    let line = some.check(&ubuntu).unwrap_err().to_string();
    assert!(
        line.ends_with("; it allows ghcr.io/acme/**, quay.io/a/b:1"),
        "{line}"
    );
    assert!(some.check(&"ghcr.io/acme/x".parse().unwrap()).is_ok());
    let many = Policy::only(vec![pattern("a.io/x"); 9]);
    assert!(
        many.check(&ubuntu)
            .unwrap_err()
            .to_string()
            .ends_with(", …")
    );
}

/// What a part of a repository may be, and a pattern for it that is known to fit.
fn part() -> impl Strategy<Value = (String, String)> {
    (
        "[a-z0-9]{1,8}",
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(text, a, b)| {
            let (a, b) = (a.index(text.len() + 1), b.index(text.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            (format!("{}*{}", &text[..from], &text[to..]), text)
        })
}

proptest! {
    #[test]
    fn a_reference_meets_what_was_made_of_it(
        parts in prop::collection::vec(part(), 1..5), tag in "[a-z0-9]{1,5}", at in any::<prop::sample::Index>(),
    ) {
        let texts: Vec<&str> = parts.iter().map(|(_, text)| text.as_str()).collect();
        let globs: Vec<&str> = parts.iter().map(|(glob, _)| glob.as_str()).collect();
        let reference: Reference = format!("r.io/{}:{tag}", texts.join("/")).parse().unwrap();
        // Any run of parts is what ** stands for.
        let mut run = globs.clone();
        run.splice(at.index(globs.len()).., ["**"]);
        let (globs, run) = (globs.join("/"), run.join("/"));
        for text in [
            format!("r.io/{}", texts.join("/")),
            format!("r.io/{globs}:{tag}"),
            format!("*.io/{run}"),
            format!("*/{run}"),
        ] {
            prop_assert!(pattern(&text).allows(&reference), "{}", text);
        }
    }

    #[test]
    fn without_stars_only_the_same_name_is_met(a in "[a-z]{1,3}(/[a-z]{1,3}){0,2}", b in "[a-z]{1,3}(/[a-z]{1,3}){0,2}") {
        let reference: Reference = format!("r.io/{b}").parse().unwrap();
        prop_assert_eq!(pattern(&format!("r.io/{a}")).allows(&reference), a == b);
    }

    #[test]
    fn a_star_is_what_a_simple_reading_says(glob in "[ab*]{1,8}", text in "[ab]{1,8}") {
        fn simple(glob: &[u8], text: &[u8]) -> bool {
            match glob {
                [] => text.is_empty(),
                [b'*', rest @ ..] => (0..=text.len()).any(|n| simple(rest, &text[n..])),
                [first, rest @ ..] => text.first() == Some(first) && simple(rest, &text[1..]),
            }
        }
        let reference: Reference = format!("r.io/x:{text}").parse().unwrap();
        let found = pattern(&format!("r.io/x:{glob}")).allows(&reference);
        prop_assert_eq!(found, simple(glob.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn no_text_is_too_odd(text in "(\\*|/|:|@|\\.|a|sha256:|docker.io|[ -~]|\\PC){0,12}") {
        if let Ok(pattern) = text.parse::<Pattern>() {
            prop_assert_eq!(pattern.to_string(), text);
            pattern.allows(&"docker.io/a/b:c".parse().unwrap());
        }
    }
}
