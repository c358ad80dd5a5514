//! A process that waits before each step by which it changes what outlives it: what is pinned,
//! what is attached, and files. Anyone who kills it there sees every state a crash can leave.
//!
//! A seccomp filter hands these system calls to the test, which lets them go on one by one:
//! <https://docs.kernel.org/userspace-api/seccomp_filter.html#userspace-notification>

use std::{
    io, mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context, Result};

/// The commands of bpf(2) that change what outlives the process, include/uapi/linux/bpf.h:
/// `BPF_OBJ_PIN`, `BPF_LINK_CREATE`, `BPF_LINK_UPDATE`, `BPF_LINK_DETACH`.
const COMMANDS: [(u32, &str); 4] = [
    (6, "pin"),
    (28, "attach"),
    (29, "replace a program"),
    (34, "detach"),
];

/// Calls that change folders.
const FILES: &[(libc::c_long, &str)] = &[
    (libc::SYS_renameat, "move"),
    (libc::SYS_renameat2, "move"),
    (libc::SYS_unlinkat, "remove"),
    (libc::SYS_mkdirat, "make a folder"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "move"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "remove"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "make a folder"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "remove a folder"),
];

/// Messages of rtnetlink that change qdiscs and filters, include/uapi/linux/rtnetlink.h:
/// `RTM_NEWQDISC`, `RTM_NEWTFILTER`, `RTM_DELTFILTER`.
const MESSAGES: [(u16, &str); 3] = [
    (36, "add a qdisc"),
    (44, "add a filter"),
    (45, "remove a filter"),
];

/// Where the process has the file descriptor by which it is held, which is no other's.
const HELD_BY: RawFd = 900;

/// Has the process of `command` wait before each step, for anyone who has [`Steps`].
pub fn hold(command: &mut Command) {
    let filter = filter();
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: the program outlives the call, which copies it. Nothing here allocates, as
        // behaves between fork and exec.
        unsafe {
            let held_by = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const program,
            );
            // Under another number it stays open in the program that is run.
            if held_by < 0 || libc::dup2(held_by as RawFd, HELD_BY) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls and touches nothing of the parent's.
    unsafe { command.pre_exec(install) };
}

/// Hands the calls above to the listener, and lets all others pass.
fn filter() -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_IF: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let instruction = |code: u32, k, jt, jf| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = |offset: usize| instruction(LOAD, offset as u32, 0, 0);

    let calls = FILES.iter().map(|(call, _)| *call as u32);
    let calls: Vec<u32> = calls.chain([libc::SYS_sendto as u32]).collect();
    // Two loads and the jump to the commands, and then the two ends.
    let allow = calls.len() + COMMANDS.len() + 3;
    let hand_over = allow + 1;
    let to = |target: usize, from: &[libc::sock_filter]| (target - from.len() - 1) as u8;
    let mut filter = vec![load(mem::offset_of!(libc::seccomp_data, nr))];
    for call in calls {
        filter.push(instruction(JUMP_IF, call, to(hand_over, &filter), 0));
    }
    let jump = instruction(JUMP_IF, libc::SYS_bpf as u32, 0, to(allow, &filter));
    filter.push(jump);
    // The lower half of the first argument, on a little-endian machine.
    filter.push(load(mem::offset_of!(libc::seccomp_data, args)));
    for (command, _) in COMMANDS {
        filter.push(instruction(JUMP_IF, command, to(hand_over, &filter), 0));
    }
    filter.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    filter.push(instruction(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0));
    filter
}

/// The steps of a process that is held.
#[derive(Debug)]
pub struct Steps(OwnedFd);

/// A step that a process waits for.
#[derive(Debug)]
pub struct Step {
    /// What it would do.
    pub deed: &'static str,
    id: u64,
}

impl Steps {
    /// Those of a process that was started by a command that [`hold`] has changed.
    pub fn of(process: &Child) -> Result<Self> {
        // SAFETY: no memory is involved.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, process.id(), 0) };
        let process = owned(process).context("open the process")?;
        // SAFETY: no memory is involved.
        let held_by =
            unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), HELD_BY, 0) };
        Ok(Self(owned(held_by).context("get its steps")?))
    }

    /// The step that the process waits for, unless it comes to none for so long.
    pub fn next(&self, patience: Duration) -> Result<Option<Step>> {
        while self.ready(patience)? {
            // SAFETY: all zero bytes are a notification, and the kernel wants it so.
            let mut notification: libc::seccomp_notif = unsafe { mem::zeroed() };
            // SAFETY: the kernel writes one notification.
            let received = unsafe {
                libc::ioctl(
                    self.0.as_raw_fd(),
                    libc::SECCOMP_IOCTL_NOTIF_RECV,
                    &raw mut notification,
                )
            };
            if received < 0 {
                match io::Error::last_os_error().raw_os_error() {
                    // It was killed meanwhile.
                    Some(libc::ENOENT) => return Ok(None),
                    Some(libc::EINTR) => continue,
                    _ => return Err(io::Error::last_os_error()).context("hear of a step"),
                }
            }
            let id = notification.id;
            match deed(&notification) {
                Some(deed) => return Ok(Some(Step { deed, id })),
                None => self.allow(&Step { deed: "", id })?,
            }
        }
        Ok(None)
    }

    /// Lets the process take a step.
    pub fn allow(&self, step: &Step) -> Result<()> {
        let mut response = libc::seccomp_notif_resp {
            id: step.id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        };
        // SAFETY: the kernel reads one response.
        let sent = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw mut response,
            )
        };
        let error = io::Error::last_os_error();
        // Anyone who was killed needs no answer.
        if sent < 0 && error.raw_os_error() != Some(libc::ENOENT) {
            return Err(error).context("let it take a step");
        }
        Ok(())
    }

    fn ready(&self, patience: Duration) -> Result<bool> {
        let mut waiting = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one descriptor, as the call is told.
        let ready = unsafe { libc::poll(&raw mut waiting, 1, patience.as_millis() as i32) };
        match io::Error::last_os_error() {
            error if ready < 0 && error.kind() != io::ErrorKind::Interrupted => {
                Err(error).context("wait for a step")
            }
            _ => Ok(ready > 0 && waiting.revents & libc::POLLIN != 0),
        }
    }
}

/// What a call would change, if anything.
fn deed(notification: &libc::seccomp_notif) -> Option<&'static str> {
    let data = &notification.data;
    let call = libc::c_long::from(data.nr);
    if call == libc::SYS_bpf {
        let command = COMMANDS
            .iter()
            .find(|(command, _)| *command == data.args[0] as u32);
        return command.map(|(_, deed)| *deed);
    }
    if call == libc::SYS_sendto {
        let kind = message_kind(notification.pid, data.args[1], data.args[2])?;
        let message = MESSAGES.iter().find(|(message, _)| *message == kind);
        return message.map(|(_, deed)| *deed);
    }
    let file = FILES.iter().find(|(file, _)| *file == call);
    file.map(|(_, deed)| *deed)
}

/// The kind of the message that a process is about to send, if it is one of rtnetlink.
fn message_kind(process: u32, address: u64, length: u64) -> Option<u16> {
    /// `struct nlmsghdr`: the length of all, 4 bytes; the kind, 2; and more.
    const HEADER: usize = 16;

    let mut header = [0_u8; HEADER];
    let here = libc::iovec {
        iov_base: header.as_mut_ptr().cast(),
        iov_len: HEADER,
    };
    let there = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: HEADER,
    };
    // SAFETY: the kernel writes what there is room for, and checks the other address itself.
    let read = unsafe {
        libc::process_vm_readv(process as i32, &raw const here, 1, &raw const there, 1, 0)
    };
    let told = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
    let whole = read == HEADER as isize && u64::from(told) == length;
    whole.then(|| u16::from_ne_bytes([header[4], header[5]]))
}

fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}
