//! Defaults shared by the layers' configs.

pub(super) fn default_true() -> bool {
    true
}
