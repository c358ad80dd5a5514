//! A VLAN tag that stands beside the frame, as devices hand it over that strip tags (trap A2).

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow},
};
use guard_tests::{
    bpffs,
    frames::udp,
    guard::Guard,
    netns::Direct,
    wire::{Listener, QUIET, Wire},
};

use super::MODES;

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

#[test]
fn e01_a2_tags_beside_the_frame() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let listener = Listener::new(&topology.guarded, 40_000)?;
        let _server = Listener::new(&topology.peer, 53)?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let host = Wire::open(&topology.guarded, topology.interface())?;
        let send = |family| wire.send(&udp(53, 40_000).received(family));

        // Id 7 is nobody's here; that it is not delivered shows that the tag is there.
        for (id, due) in [(7, 0), (0, 1)] {
            tag(&topology, id)?;
            for family in FAMILIES {
                send(family)?;
                let delivered = listener.delivered(QUIET);
                ensure!(
                    delivered == due,
                    "id {id}, {family:?}: {delivered} delivered"
                );
            }
        }

        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        for id in [7, 0] {
            tag(&topology, id)?;
            for family in FAMILIES {
                guard
                    .expect([(DropNoFlow, 1)], || send(family))
                    .with_context(|| format!("{mode}, id {id}, {family:?}"))?;
            }
        }
        ensure!(listener.delivered(QUIET) == 0, "{mode}: some are delivered");
        // And an answer is one whatever its tag.
        for family in FAMILIES {
            guard.expect([(PassNewFlow, 1)], || {
                host.send(&udp(40_000, 53).sent(family))
            })?;
            guard.expect([(PassKnownFlow, 1)], || send(family))?;
            let delivered = listener.delivered(QUIET);
            ensure!(delivered == 1, "{mode}, {family:?}: {delivered} answers");
        }
    }
    Ok(())
}

/// Puts a tag of this id beside everything that the peer sends.
fn tag(topology: &Direct, id: i32) -> Result<()> {
    let folder = bpffs::Folder::new()?;
    let pin = folder.path().join("tag");
    pin_program(&load(id)?, &pin)?;
    let tc = |words: &[&str]| -> Result<()> {
        let output = topology.peer.command("tc").args(words).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tc {words:?}: {said}");
        Ok(())
    };
    let interface = topology.peer_interface();
    tc(&["qdisc", "replace", "dev", interface, "clsact"])?;
    tc(&["filter", "del", "dev", interface, "egress"])?;
    let pin = pin.to_str().context("a path in UTF-8")?;
    tc(&[
        "filter",
        "add",
        "dev",
        interface,
        "egress",
        "bpf",
        "da",
        "object-pinned",
        pin,
    ])
}

/// `bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), id); return TC_ACT_OK;`
fn load(id: i32) -> Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
    const BPF_FUNC_SKB_VLAN_PUSH: i32 = 18;
    const SET: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;

    #[repr(C)]
    struct Instruction {
        code: u8,
        register: u8,
        offset: i16,
        value: i32,
    }
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 4],
    }

    let instruction = |code, register, value| Instruction {
        code,
        register,
        offset: 0,
        value,
    };
    let tag_type = i32::from((libc::ETH_P_8021Q as u16).to_be());
    let instructions = [
        instruction(SET, 2, tag_type),
        instruction(SET, 3, id),
        instruction(CALL, 0, BPF_FUNC_SKB_VLAN_PUSH),
        instruction(SET, 0, 0),
        instruction(EXIT, 0, 0),
    ];
    let attributes = Load {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 4],
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes).context("load the program that tags")?;
    // SAFETY: the file descriptor was just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pin_program(program: &OwnedFd, path: &Path) -> Result<()> {
    const BPF_OBJ_PIN: libc::c_int = 6;

    #[repr(C)]
    struct Pin {
        path: u64,
        program: u32,
        flags: u32,
    }

    let path = CString::new(path.to_str().context("a path in UTF-8")?)?;
    let attributes = Pin {
        path: path.as_ptr() as u64,
        program: program.as_raw_fd().unsigned_abs(),
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &attributes).context("pin the program that tags")?;
    Ok(())
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are as long as the call is told, and what they point to is alive.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const *attributes,
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as libc::c_int)
}
