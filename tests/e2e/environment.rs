//! Variables of the client's, and locales that the image may not have.

use crate::support::host::Host;
use crate::support::terminal::Terminal;
use crate::tests;

tests![
    a_locale_of_the_image_stays,
    a_locale_that_the_image_lacks_is_c_utf8,
    an_image_without_locales_has_c_utf8,
    variables_that_the_administrator_accepts_pass,
    a_terminal_says_its_colours,
];

const SHOW: &str = "echo $LANG $LC_ALL $LC_TIME";

fn a_locale_of_the_image_stays() {
    let host = Host::shared("debian");
    for locale in ["en_US.UTF-8", "en_US.utf8", "C.UTF-8", "C", "POSIX"] {
        let output = host
            .ssh(SHOW)
            .env("LANG", locale)
            .env("LC_TIME", locale)
            .run();
        assert_eq!(output.line(), format!("{locale} {locale}"));
    }
}

fn a_locale_that_the_image_lacks_is_c_utf8() {
    let host = Host::shared("debian");
    // bash warns of a locale that it does not find: `line` wants silence.
    let command = format!("{SHOW}; locale charmap; bash -c true");
    for locale in ["fr_FR.UTF-8", "en_US.ISO-8859-1", "xx", "../../etc", "/etc"] {
        let output = host
            .ssh(&command)
            .env("LANG", "en_US.UTF-8")
            .env("LC_ALL", locale)
            .env("LC_TIME", locale)
            .run();
        assert_eq!(
            output.line(),
            "en_US.UTF-8 C.UTF-8 C.UTF-8\nUTF-8",
            "{locale}"
        );
    }
    let output = host.ssh("echo [$LANG]").env("LANG", "").run();
    assert_eq!(output.line(), "[]");
}

fn an_image_without_locales_has_c_utf8() {
    let host = Host::shared("busybox");
    let output = host.ssh(SHOW).env("LANG", "de_DE.UTF-8").run();
    assert_eq!(output.line(), "C.UTF-8");
    let output = host.ssh(SHOW).run();
    assert_eq!(output.line(), "");
}

fn variables_that_the_administrator_accepts_pass() {
    let host = Host::with_sshd(
        "busybox",
        &[("AcceptEnv LANG", "AcceptEnv GIT_* DISPLAY LD_* LANG")],
    );
    let output = host
        .ssh("echo [$GIT_AUTHOR_NAME] [$EDITOR] [$LD_PRELOAD]")
        .option("-oSendEnv=GIT_* EDITOR LD_*")
        .env("GIT_AUTHOR_NAME", "A  'B' \"$(id)\"")
        .env("EDITOR", "vi")
        .env("LD_PRELOAD", "")
        .run();
    assert_eq!(output.line(), "[A 'B' \"$(id)\"] [] []");
}

fn a_terminal_says_its_colours() {
    let host = Host::shared("debian");
    let command = host
        .ssh("echo $TERM $COLORTERM; tput colors")
        .option("-t")
        .env("COLORTERM", "truecolor")
        .command();
    let mut client = Terminal::open(command);
    client.expect("xterm-256color truecolor");
    client.expect("256");
    assert!(client.wait().success());
}
