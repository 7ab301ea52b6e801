//! Development aid: `pod LOWER GUEST [COMMAND]` joins or creates a pod of plain
//! directories, without the command line, configuration or store.
#![allow(clippy::print_stderr)]
use std::path::PathBuf;
use std::time::Duration;

use podspawn_runtime::cgroup;
use podspawn_runtime::idmap::IdMap;
use podspawn_runtime::network::Network;
use podspawn_runtime::pod::{Mode, PodName, PodPaths, RunDir, attach_or_launch};
use podspawn_runtime::session::{self, Action, Session};
use podspawn_runtime::supervisor::{HomeChoice, Login, PodImage, PodSpec, Terms, UserChoice};

fn main() {
    session::close_inherited();
    let mut args = std::env::args().skip(1);
    let lower = PathBuf::from(args.next().unwrap());
    let guest = PathBuf::from(args.next().unwrap());
    let action = args
        .next()
        .map_or(Action::Shell, |c| Action::Command(c.into_bytes()));
    let uid = rustix::process::getuid().as_raw();
    let name = std::env::var("USER").unwrap_or_else(|_| "alice".into());
    let login = Login {
        name: name.clone(),
        uid,
        gid: rustix::process::getgid().as_raw(),
    };
    let map = IdMap::of_user(&name, uid, login.gid).unwrap();
    let run = RunDir::of_user(None, uid).unwrap();
    let home = PathBuf::from(std::env::var("HOME").unwrap());
    let paths = PodPaths::new(&run, &home.join("store"), PodName::default_pod());
    let shells = vec![PathBuf::from("/bin/bash"), "/bin/sh".into()];
    let spec_paths = paths.clone();
    let attached = attach_or_launch::<std::io::Error>(&paths, 0, || {
        Ok(PodSpec {
            paths: spec_paths,
            map,
            image: PodImage {
                reference: "dir".into(),
                config: Default::default(),
                lowers: vec![lower],
                lease: None,
            },
            guest,
            terminfo: vec!["/lib/terminfo".into()],
            login,
            services: Vec::new(),
            env: Vec::new(),
            workspace: None,
            network: Network::None,
            user: UserChoice::Login,
            records: podspawn_runtime::record::Records::default(),
            shells: shells.clone(),
            security: Default::default(),
            terms: Terms {
                mode: Mode::GracePeriod,
                grace_period: Duration::from_secs(5),
                max_lifetime: None,
            },
            host_user: cgroup::User {
                uid,
                runtime: Vec::new(),
                lingers: false,
                outlives_login: true,
            },
            limits: Default::default(),
            home: HomeChoice::Ephemeral,
            keep_root: false,
        })
    });
    let attached = match attached {
        Ok(a) => a,
        Err(e) => {
            eprintln!("podspawn: {}", podspawn_runtime::error::chain(&e));
            std::process::exit(125)
        }
    };
    let session = Session {
        forwarded: podspawn_runtime::sockets::Forwarded::default(),
        login: rustix::process::getuid().as_raw(),
        action,
        env: session::pass_through(std::env::vars_os()),
        terminal: rustix::termios::isatty(rustix::stdio::stdin()),
        shells,
        terminfo: 1,
    };
    match session::run(&attached, &session) {
        Ok(ended) => ended.how.pass_on(),
        Err(e) => {
            eprintln!("podspawn: {}", podspawn_runtime::error::chain(&e));
            std::process::exit(125)
        }
    }
}
