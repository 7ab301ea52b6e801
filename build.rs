//! Builds the guest, the static helper that podspawn maps into every container,
//! so that it can be embedded and one file is all that is installed.
//!
//! Cargo cannot yet make one package's binary, for another profile and with
//! other flags, an input of another package (artifact dependencies are not
//! stable). So cargo is run once more, in a target directory of its own below
//! OUT_DIR, as projects do that embed eBPF programs.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    for input in ["guest/src", "guest/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={input}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let target = env::var("TARGET")?;
    let built = build_guest(&out.join("guest-target"), &target)?;
    let guest = out.join("podspawn-guest");
    std::fs::copy(&built, &guest)?;
    println!("cargo::rustc-env=PODSPAWN_GUEST={}", guest.display());
    println!("cargo::rustc-env=PODSPAWN_GUEST_SHA256={}", sha256(&guest)?);
    Ok(())
}

fn build_guest(dir: &Path, target: &str) -> Result<PathBuf, Box<dyn Error>> {
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo.args([
        "build",
        "--locked",
        "--package",
        "podspawn-guest",
        "--profile",
        "guest",
    ]);
    cargo.args(["--target", target, "--target-dir"]).arg(dir);
    for (name, _) in env::vars_os() {
        if is_of_the_outer_build(&name.to_string_lossy()) {
            cargo.env_remove(&name);
        }
    }
    cargo.env(
        "RUSTFLAGS",
        "-C target-feature=+crt-static -C relocation-model=static",
    );
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the guest does not build: {status}").into());
    }
    Ok(dir.join(target).join("guest/podspawn-guest"))
}

/// Whether a variable speaks about the build that this script is part of: flags
/// and wrappers (clippy comes as one), the package, its features and its target
/// directory. How to reach registries, which linker a target has, and the job
/// server are the same for both.
fn is_of_the_outer_build(name: &str) -> bool {
    let shared = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
    ];
    let of_a_target = name.starts_with("CARGO_TARGET_")
        && ["_LINKER", "_RUNNER", "_AR"]
            .iter()
            .any(|end| name.ends_with(end));
    match name {
        "RUSTC_WORKSPACE_WRAPPER" | "CLIPPY_ARGS" => true,
        _ if of_a_target => false,
        _ => name.starts_with("CARGO_") && !shared.iter().any(|start| name.starts_with(start)),
    }
}

fn sha256(file: &Path) -> Result<String, Box<dyn Error>> {
    use sha2::{Digest, Sha256};
    let sum = Sha256::digest(std::fs::read(file)?);
    Ok(sum.iter().map(|byte| format!("{byte:02x}")).collect())
}
