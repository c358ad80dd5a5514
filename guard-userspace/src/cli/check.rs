//! `portguard check`: what this kernel, driver, range and the present listeners mean for a run,
//! without attaching anything.

mod cgroup;
mod device;
mod memory;
mod ports;
mod report;
mod system;

pub use self::report::{CheckReport, CheckResult, Item};
use crate::{
    api::{control, http},
    base::failure::{Exit, Failure},
    bpf::pins::Pins,
    config::{self, Settings},
    daemon::event_loop::RunRequest,
    host::{descriptors, interfaces, lock::InstanceLock, namespace, privileges, range::LocalPorts},
};

/// Checks the run that `start` describes and prints what it finds. Returns how that run would end,
/// [`Exit::Fine`] when it would guard.
///
/// # Errors
/// When the namespace or its interfaces cannot be looked at, or nothing can be printed.
pub async fn run(start: &RunRequest, json: bool) -> Result<Exit, Failure> {
    let mut report = CheckReport::default();
    match Settings::load(&start.flags, start.config.as_deref()) {
        Ok(settings) => {
            let text = match &start.config {
                Some(file) => format!("{} and the flags are valid", file.display()),
                None => "the flags are valid".to_owned(),
            };
            report.ok("configuration", text);
            if let Ok(local) = LocalPorts::read(settings.range) {
                for warning in config::warnings(&settings, &local) {
                    report.note("configuration", warning);
                }
            }
            host(&settings, start.config.is_some(), &mut report).await?;
        }
        Err(failure) => report.problem("configuration", &failure),
    }
    report.print(json)?;

    Ok(report.exit())
}

/// In the order of a run, so that the first problem is the one that a run would end with.
async fn host(settings: &Settings, file: bool, report: &mut CheckReport) -> Result<(), Failure> {
    let permitted = privileges::require();
    match &permitted {
        Ok(()) => report.ok("privileges", "all that a run needs"),
        Err(failure) => report.problem("privileges", failure),
    }
    report.items.push(system::kernel(settings));

    let namespace = namespace::name()?;
    let netlink = interfaces::connect()?;
    let all = interfaces::list(&netlink).await?;
    let pins = Pins::new(&settings.pin_dir, &namespace);
    let holder = InstanceLock::holder(&namespace);
    device::interfaces(settings, &all, report);
    let enough_files = open_files(settings, report);
    match holder {
        // A file is checked so that the running guard can read it.
        Some(pid) if file => report.note(
            "instance",
            format!(
                "pid {pid} guards this network namespace; `portguard reload` has it read its file"
            ),
        ),
        holder => instance(holder, permitted.is_ok(), &namespace, report),
    }

    ports::ports(settings, report);
    if holder.is_none() {
        servers(settings, report).await;
    }
    device::programs(settings, &all, &pins, report);
    system::pins(&pins, &all, settings, holder.is_some(), report);
    let room = cgroup::room();
    if permitted.is_ok()
        && enough_files
        && memory::suffices(room.as_ref(), settings, report)
        && let Some(programs) = system::trial(report)
    {
        memory::memory(&programs, room.as_ref(), settings, report);
    }

    Ok(())
}

/// Says whether a run may open as many files as it needs.
fn open_files(settings: &Settings, report: &mut CheckReport) -> bool {
    let interfaces = settings.iface.len() + settings.egress_iface.len();
    let required = descriptors::require_for_a_run(interfaces);
    match &required {
        Ok(()) => report.ok("open files", "as many as a run needs"),
        Err(failure) => report.problem("open files", failure),
    }

    required.is_ok()
}

fn instance(holder: Option<u32>, permitted: bool, namespace: &str, report: &mut CheckReport) {
    match holder {
        Some(pid) => report.problem("instance", &InstanceLock::taken(Some(pid))),
        None if !permitted => report.note(
            "instance",
            "whether a daemon guards this network namespace is not for this user to know",
        ),
        None => match InstanceLock::try_out(namespace) {
            Ok(()) => report.ok("instance", "no daemon guards this network namespace"),
            Err(failure) => report.problem("instance", &failure),
        },
    }
}

/// What the daemon would listen on. The running one has its own.
async fn servers(settings: &Settings, report: &mut CheckReport) {
    match http::bind(settings.metrics_listen).await {
        Ok(_) => report.ok("metrics", format!("{} is free", settings.metrics_listen)),
        // Any local user can be in the way, so a run guards without them.
        Err(failure) => report.items.push(Item::note(
            "metrics",
            format!("{}: they come when they can", failure.message()),
            failure.advice().map(str::to_owned),
        )),
    }
    let path = &settings.control_socket;
    let inspected = control::ControlSocket::inspect(path).await;
    match inspected.and_then(|_| control::ControlSocket::try_folder(path)) {
        Ok(()) => report.ok("control socket", format!("{} is free", path.display())),
        Err(failure) if control::ControlSocket::is_anothers(path) => report.items.push(Item::note(
            "control socket",
            format!("{}: it comes when it can", failure.message()),
            failure.advice().map(str::to_owned),
        )),
        Err(failure) => report.problem("control socket", &failure),
    }
}
