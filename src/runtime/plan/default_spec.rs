//! The config.json that `spec` writes: a shell on a terminal, in namespaces of its own.
//!
//! Kept as a file of the examples, so that its plan is recorded beside it. As runc's, but with a
//! cgroup namespace (as runc's on cgroup v2) and without ambient capabilities, which are refused
//! where they are not inheritable as well.

/// config.json as `spec` writes it.
pub fn text() -> String {
    include_str!("../../../bundles/examples/default/config.json").to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_config_is_a_spec() {
        let spec: oci_spec::runtime::Spec = serde_json::from_str(&super::text()).unwrap();
        assert_eq!(spec.version(), "1.3.0");
        assert_eq!(spec.hostname().as_deref(), Some("sc-runtime"));
    }
}
