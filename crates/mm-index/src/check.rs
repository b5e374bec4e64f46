//! Problems that a check of any engine finds.

use crate::{CheckProblem, CheckReport};

/// Problems of one kind that are listed.
const MAX_LISTED: usize = 20;

/// What a person does who meets damage, to learn how much there is.
pub(crate) const LIST: &str = "`mm index check` lists what is damaged";

/// What to do about what no row says where it comes from.
pub(crate) const REBUILD: &str = "restore a copy of the store, or build it again";

pub(crate) const RESTORE: &str = "restore a copy of the store, or delete the row (`mm index delete --id`) and write it again (`mm index build`, `add` or `import`)";

impl CheckReport {
    pub(crate) fn add(&mut self, what: impl Into<String>, reason: impl Into<String>, repairable: bool) {
        let (what, reason) = (what.into(), reason.into());
        self.problems.push(CheckProblem { what, reason, repairable });
    }

    /// Adds the first of some problems, and how many more there are.
    pub(crate) fn list(&mut self, what: &str, found: &[String], reason: &str) {
        for one in found.iter().take(MAX_LISTED) {
            self.add(format!("{what} {one}"), reason, false);
        }
        if found.len() > MAX_LISTED {
            self.add(what, format!("{} more: {reason}", found.len() - MAX_LISTED), false);
        }
    }
}
