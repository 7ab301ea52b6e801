//! The same filter for services, whose containers libcontainer starts and filters.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use super::syscalls::{ALLOWED, BY_CAPABILITY, NAMESPACES, PERSONALITIES, REFUSED, VSOCK, words};

/// The filter of a service, which has none of the capabilities that allow more.
///
/// # Errors
///
/// When it cannot be put together.
pub fn of_service() -> Result<LinuxSeccomp, OciSpecError> {
    let refused = words(REFUSED).chain(BY_CAPABILITY.iter().flat_map(|(_, names)| words(names)));
    let mut rules = vec![
        allow(words(ALLOWED).map(String::from).collect(), &[])?,
        refuse(refused.map(String::from).collect(), &[])?,
    ];
    for personality in PERSONALITIES {
        let same = arg(personality, None, LinuxSeccompOperator::ScmpCmpEq)?;
        rules.push(allow(vec!["personality".into()], &[same])?);
    }
    let masked = LinuxSeccompOperator::ScmpCmpMaskedEq;
    rules.push(allow(
        vec!["clone".into()],
        &[arg(0, Some(NAMESPACES), masked)?],
    )?);
    for bit in (0..64).map(|n| 1 << n).filter(|bit| NAMESPACES & bit != 0) {
        rules.push(refuse(
            vec!["clone".into()],
            &[arg(bit, Some(bit), masked)?],
        )?);
    }
    let other = arg(VSOCK, None, LinuxSeccompOperator::ScmpCmpNe)?;
    rules.push(allow(vec!["socket".into()], &[other])?);
    let vsock = arg(VSOCK, None, LinuxSeccompOperator::ScmpCmpEq)?;
    rules.push(refuse(vec!["socket".into()], &[vsock])?);
    let companions = if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        Vec::new()
    };
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::ENOSYS.cast_unsigned())
        .architectures(companions)
        .syscalls(rules)
        .build()
}

/// `mask` where libcontainer takes it: as the second value.
fn arg(
    value: u64,
    mask: Option<u64>,
    op: LinuxSeccompOperator,
) -> Result<LinuxSeccompArg, OciSpecError> {
    let arg = LinuxSeccompArgBuilder::default()
        .index(0usize)
        .value(value)
        .op(op);
    match mask {
        Some(mask) => arg.value_two(mask).build(),
        None => arg.build(),
    }
}

fn allow(names: Vec<String>, args: &[LinuxSeccompArg]) -> Result<LinuxSyscall, OciSpecError> {
    let rule = LinuxSyscallBuilder::default().names(names);
    rule.action(LinuxSeccompAction::ScmpActAllow)
        .args(args.to_vec())
        .build()
}

fn refuse(names: Vec<String>, args: &[LinuxSeccompArg]) -> Result<LinuxSyscall, OciSpecError> {
    LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(libc::EPERM.cast_unsigned())
        .args(args.to_vec())
        .build()
}
