//! Which system calls programs in a pod may make: an allow list in the shape that
//! Docker's and containers-common's default profiles have
//! (<https://docs.docker.com/engine/security/seccomp/>).
//!
//! Pure. Names are libseccomp's; one that an architecture does not have is passed
//! over. What is in neither list is newer than this file and fails with `ENOSYS`,
//! so that a C library falls back to what it did before.

/// Always allowed.
pub const ALLOWED: &str = "
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64
    arm_sync_file_range bind breakpoint brk cachestat cacheflush capget capset chdir chmod chown
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod
    fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid
    getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
    io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set
    ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek
    lsetxattr lstat lstat64 madvise map_shadow_stack mbind membarrier memfd_create memfd_secret
    mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
    munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_getfd pidfd_open pidfd_send_signal
    pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv
    preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64
    ptrace pwrite64 pwritev pwritev2 read readahead readdir readlink readlinkat readv recv recvfrom
    recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall riscv_flush_icache riscv_hwprobe rmdir rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo s390_guarded_storage s390_runtime_instr s390_sthyi
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_mempolicy
    set_mempolicy_home_node set_robust_list set_thread_area set_tid_address set_tls setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
    setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget
    shutdown sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn
    sigsuspend socketcall socketpair splice stat stat64 statfs statfs64 statmount statx swapcontext
    symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe
    utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
";

/// Known, and refused with `EPERM` whatever the capabilities: they reach parts of
/// the kernel that a container has no business with, or that have been a way out.
pub const REFUSED: &str = "
    add_key bdflush clock_settime clock_settime64 create_module delete_module finit_module
    fsconfig fsmount fsopen fspick get_kernel_syms init_module io_uring_enter io_uring_register
    io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie migrate_pages
    mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at
    open_tree pciconfig_iobase pciconfig_read pciconfig_write perf_event_open pivot_root
    process_madvise query_module quotactl quotactl_fd reboot request_key s390_pci_mmio_read
    s390_pci_mmio_write setdomainname sethostname setns settimeofday sgetmask ssetmask stime
    swapoff swapon sysfs syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old
    acct bpf fanotify_init
";

/// Allowed with a capability, by its name, and refused with `EPERM` without.
pub const BY_CAPABILITY: &[(&str, &str)] =
    &[("CAP_SYS_CHROOT", "chroot"), ("CAP_SYS_NICE", "nice")];

/// Personalities that only change what programs see (`personality(2)`): Linux,
/// Linux with 32-bit addresses or `uname`, without address randomisation, and
/// the question which one it is.
pub const PERSONALITIES: [u64; 6] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, 0xffff_ffff];

/// Flags of `clone(2)` that make a namespace (`CLONE_NEW*`).
pub const NAMESPACES: u64 = 0x7e02_0000;

/// Sockets of the hypervisor's (`AF_VSOCK`) reach past every namespace.
pub const VSOCK: u64 = 40;

/// The words of a list.
pub fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_call_is_in_two_lists() {
        let all: Vec<&str> = words(ALLOWED)
            .chain(words(REFUSED))
            .chain(BY_CAPABILITY.iter().flat_map(|(_, list)| words(list)))
            .chain(["clone", "clone3", "personality", "socket"])
            .collect();
        let once: BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(all.len(), once.len());
    }
}
