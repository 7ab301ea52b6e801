//! Files of names that the pod's root spoils: each login takes them over.

use super::host::{Differences, RootHost};
use crate::tests;

tests![spoiled_names_keep_nobody_out];

/// The one who comes in may be the one who puts them right.
fn spoiled_names_keep_nobody_out() {
    let host = RootHost::with(&Differences {
        config: "session:\n  grace_period: 1m\nuser: root\n",
        ..Differences::default()
    });
    let first = host.host.ssh("readlink /proc/self/ns/mnt").run().line();
    for file in ["/etc/hosts", "/etc/resolv.conf"] {
        for spoil in [
            "touch @; chmod 000 @",
            "rm -f @; mkfifo @",
            "rm -f @; mkdir @",
            "rm -rf @; ln -s /proc/kmsg @",
            "rm -f @; ln -s @ @",
            "rm -f @; head -c 100000 /dev/zero | tr '\\0' '#' >@",
            "head -c 2000000 /dev/zero >@",
        ] {
            let spoil = spoil.replace('@', file);
            assert_eq!(host.host.ssh(&spoil).run().line(), "", "{spoil}");
            // In the very same pod.
            let output = host.host.ssh("readlink /proc/self/ns/mnt").run();
            assert_eq!(output.line(), first, "{spoil}");
        }
    }
}
