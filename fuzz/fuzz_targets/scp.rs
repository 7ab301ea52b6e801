//! An scp that says anything to the guest's. The first byte gives the options; as the
//! far end of a download, the first line is a path or pattern.
#![no_main]

mod jail;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::sync::LazyLock;

use jail::Jail;
use libfuzzer_sys::fuzz_target;
use podspawn_guest::scp;

static JAIL: LazyLock<Jail> = LazyLock::new(Jail::new);

fuzz_target!(|data: &[u8]| {
    let Some((&mode, mut said)) = data.split_first() else {
        return;
    };
    let mut args: Vec<OsString> = Vec::new();
    for (bit, flag) in [(1, "-r"), (2, "-p"), (4, "-d")] {
        if mode & bit != 0 {
            args.push(flag.into());
        }
    }
    let jail = JAIL.root();
    fs::create_dir(jail.join("d")).expect("mkdir");
    if mode & 8 != 0 {
        let end = said.iter().position(|&b| b == b'\n').unwrap_or(said.len());
        args.extend([
            "-f".into(),
            "--".into(),
            OsString::from_vec(said[..end].to_vec()),
        ]);
        said = said.get(end + 1..).unwrap_or_default();
        for name in ["ab", "a[b]", "d/x"] {
            fs::write(jail.join(name), [b'x'; 300]).expect("write");
        }
    } else {
        args.extend(["-t".into(), "d".into()]);
    }
    let said = said.to_vec();
    JAIL.run(move || {
        let mut heard = Vec::new();
        let _ = scp::answer(&args, said.as_slice(), &mut heard);
        // Into d, and nowhere else.
        if mode & 8 == 0 {
            assert_eq!(fs::read_dir("/").expect("ls").count(), 1);
        }
    });
});
