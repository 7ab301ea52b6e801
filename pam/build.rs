//! Links the module to Linux-PAM by its soname, so that no development package is needed.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-l:libpam.so.0");
}
