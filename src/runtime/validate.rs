//! DRAFT
use crate::runtime::plan::Ask;
use anyhow::Result;
use oci_spec::runtime::Spec;
pub fn check(_spec: &Spec, _ask: &Ask) -> Result<()> {
    Ok(())
}
