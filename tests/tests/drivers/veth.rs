//! veth: generic, unless native mode is asked for.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    frames::udp,
    guard::Guard,
    kernel::Kernel,
    netns::{Direct, Namespace, link},
    wire::{Listener, QUIET, Wire},
};

use super::{FAMILIES, PORT, checked, shown, told};

#[test]
fn auto_takes_generic_mode_on_a_veth_and_says_why() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    // flags, mode, what check says
    let table = [
        (
            "auto",
            "generic",
            "generic mode: frames that other programs redirect",
        ),
        (
            "native",
            "native",
            "native mode, as asked for, but frames that",
        ),
        ("generic", "generic", "generic mode, as asked for"),
    ];
    for (asked, mode, said) in table {
        let checked = checked(host, "vg", &["--xdp-mode", asked])?;
        ensure!(checked.starts_with(said), "{asked}: {checked}");
        let guard = Guard::start(host, "vg", &["--xdp-mode", asked])?;
        ensure!(told(&guard, "vg")? == mode, "{asked}: {}", guard.said());
        ensure!(shown(host, "vg")? == Some(mode), "{asked}: another mode");
        let why = "vg: XDP runs in generic mode: frames that other programs redirect";
        ensure!(
            guard.said().contains(why) == (asked == "auto"),
            "{asked}: {}",
            guard.said()
        );
    }
    Ok(())
}

/// What is in force changes with the flags of the next start, and a change of the MTU changes
/// nothing.
#[test]
fn a_start_goes_to_the_mode_that_it_would_take_anew() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let mut guard = Guard::start(host, "vg", &["--xdp-mode", "native"])?;
    for (asked, mode) in [
        ("auto", "generic"),
        ("native", "native"),
        ("generic", "generic"),
    ] {
        guard.kill()?;
        guard.start_again(&["--xdp-mode", asked])?;
        ensure!(told(&guard, "vg")? == mode, "{asked}: {}", guard.said());
        ensure!(shown(host, "vg")? == Some(mode), "{asked}: another mode");
    }
    Ok(())
}

/// A bond has its ports run the program, so what holds for them holds for it.
#[test]
fn a_bond_of_veths_is_guarded_as_they_are() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    if host.ip("link add bond0 type bond").is_err() {
        println!("skipped: this kernel has no bonds");
        return Ok(());
    }
    for command in [
        "link set vg down",
        "link set vg master bond0",
        "link set bond0 up",
    ] {
        host.ip(command)?;
    }
    let checked = checked(host, "bond0", &[])?;
    ensure!(
        checked.starts_with("generic mode: its port vg: frames"),
        "{checked}"
    );
    let guard = Guard::start(host, "bond0", &["--xdp-mode", "auto"])?;
    ensure!(told(&guard, "bond0")? == "generic", "{}", guard.said());
    ensure!(shown(host, "bond0")? == Some("generic"), "another mode");
    Ok(())
}

/// A program hands frames to the guarded end of a veth, as cluster networks do.
#[test]
fn frames_that_are_redirected_into_a_veth_are_decided() -> Result<()> {
    // TCX, by which the program is attached: https://github.com/torvalds/linux/commit/e420bed02507
    if Kernel::new(6, 6).is_missing("TCX links") {
        return Ok(());
    }
    let topology = Direct::new()?;
    let (host, middle) = (&topology.guarded, &topology.peer);
    let sender = Namespace::new("s")?;
    link((&sender, "vs"), (middle, "ve"))?;
    let _redirect = middle.run(|| redirect_into_peer("ve", "vp"))?;
    let listener = Listener::new(host, PORT)?;
    let wire = Wire::open(&sender, "vs")?;
    let delivered = || -> Result<usize> {
        for family in FAMILIES {
            wire.send(&udp(53, PORT).received(family))?;
        }
        Ok(listener.delivered(QUIET))
    };

    ensure!(delivered()? == 2, "nothing arrives without a guard");
    let guard = Guard::start(host, "vg", &["--xdp-mode", "native"])?;
    ensure!(delivered()? == 2, "native XDP sees such frames by now");
    ensure!(guard.stop()?.success(), "a bad end");
    let guard = Guard::start(host, "vg", &["--xdp-mode", "auto"])?;
    let heard = delivered()?;
    ensure!(heard == 0, "{heard} unsolicited frames arrive");
    ensure!(guard.stop()?.success(), "a bad end");
    ensure!(delivered()? == 2, "nothing arrives after the guard");
    Ok(())
}

/// Has what `from` receives go to the other end of `to`, as if that had received it. Holds for as
/// long as the value lives.
fn redirect_into_peer(from: &str, to: &str) -> Result<OwnedFd> {
    const LOAD: libc::c_int = 5;
    const LINK: libc::c_int = 28;
    const CLASSIFIER: u32 = 3;
    const TCX_INGRESS: u32 = 46;
    const REDIRECT_PEER: u64 = 155;

    #[repr(C)]
    struct Program {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 5],
    }
    #[repr(C)]
    struct Link {
        program: u32,
        interface: u32,
        attached: u32,
        rest: [u32; 13],
    }

    // r1 = interface; r2 = 0; call bpf_redirect_peer; exit
    let instructions: [u64; 4] = [
        u64::from(index(to)?) << 32 | 0x01b7,
        0x02b7,
        REDIRECT_PEER << 32 | 0x85,
        0x95,
    ];
    let mut program = Program {
        kind: CLASSIFIER,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 5],
    };
    // SAFETY: instructions and license are as long as they are said to be, and outlive the call.
    let program = unsafe { bpf(LOAD, &mut program) }.context("load a program")?;
    let mut link = Link {
        program: program.as_raw_fd().unsigned_abs(),
        interface: index(from)?,
        attached: TCX_INGRESS,
        rest: [0; 13],
    };
    // SAFETY: the command takes numbers and no memory.
    unsafe { bpf(LINK, &mut link) }.context("attach it")
}

fn index(interface: &str) -> Result<u32> {
    let name = CString::new(interface)?;
    // SAFETY: the name ends in a zero byte and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "{interface}: no such interface");
    Ok(index)
}

/// # Safety
///
/// Every address in `attr` must be valid for what `command` does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is as long as the kernel is told; the caller vouches for what is in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
