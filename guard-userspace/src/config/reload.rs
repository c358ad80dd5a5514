//! What a reload of the configuration can change, and what needs a restart.

use super::Settings;

/// The settings in which two configurations differ, by their keys in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Settings a reload applies.
    pub reloadable: Vec<&'static str>,
    /// Settings that stay as they were until a restart.
    pub restart: Vec<&'static str>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.reloadable.is_empty() && self.restart.is_empty()
    }
}

impl Settings {
    /// In what `new` differs from these settings.
    pub fn changes(&self, new: &Self) -> Changes {
        // Taken apart in full, so that a new setting cannot be forgotten here.
        let Self {
            iface,
            egress_iface,
            mode,
            xdp_mode,
            egress_hook,
            allow_filter_in_front,
            range,
            max_flows,
            expose,
            trust,
            listeners,
            udp_filter,
            no_rescue,
            unrecorded,
            timeout,
            adaptive_timeouts,
            metrics_listen,
            control_socket,
            pin_dir,
            log_level,
            log_format,
            keep_attached,
        } = self;
        let reloadable = [
            ("mode", *mode != new.mode),
            (
                "allow-filter-in-front",
                *allow_filter_in_front != new.allow_filter_in_front,
            ),
            ("range", *range != new.range),
            ("expose", *expose != new.expose),
            ("trust", *trust != new.trust),
            ("listeners", *listeners != new.listeners),
            ("udp-filter", *udp_filter != new.udp_filter),
            ("no-rescue", *no_rescue != new.no_rescue),
            ("unrecorded", *unrecorded != new.unrecorded),
            ("timeout", *timeout != new.timeout),
            (
                "adaptive-timeouts",
                *adaptive_timeouts != new.adaptive_timeouts,
            ),
            ("log-level", *log_level != new.log_level),
            ("log-format", *log_format != new.log_format),
            ("keep-attached", *keep_attached != new.keep_attached),
        ];
        let restart = [
            ("iface", *iface != new.iface),
            ("egress-iface", *egress_iface != new.egress_iface),
            ("xdp-mode", *xdp_mode != new.xdp_mode),
            ("egress-hook", *egress_hook != new.egress_hook),
            ("max-flows", *max_flows != new.max_flows),
            ("metrics-listen", *metrics_listen != new.metrics_listen),
            ("control-socket", *control_socket != new.control_socket),
            ("pin-dir", *pin_dir != new.pin_dir),
        ];

        Changes {
            reloadable: differing(&reloadable),
            restart: differing(&restart),
        }
    }

    /// These settings with everything from `new` that a reload can apply.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let kept = self.clone();

        Self {
            iface: kept.iface,
            egress_iface: kept.egress_iface,
            xdp_mode: kept.xdp_mode,
            egress_hook: kept.egress_hook,
            max_flows: kept.max_flows,
            metrics_listen: kept.metrics_listen,
            control_socket: kept.control_socket,
            pin_dir: kept.pin_dir,
            ..new.clone()
        }
    }
}

fn differing(settings: &[(&'static str, bool)]) -> Vec<&'static str> {
    settings
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| *key)
        .collect()
}
