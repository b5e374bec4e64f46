//! Models and data sets that can be fetched: shared by `mm models` and `mm data`.

use crate::output;
use anyhow::Result;
use mm_hub::registry::{Kind, Registry};

/// Passes `--quiet` on.
pub(crate) fn prepare() {
    mm_hub::set_quiet(output::is_quiet());
}

/// Prints the items of mm's registry, and whether they are in the cache.
pub(crate) fn list(kind: Kind, json: bool) -> Result<()> {
    for item in Registry::built_in()?.entries(kind) {
        if json {
            output::line(serde_json::to_string(&item)?);
            continue;
        }
        let state = if item.cached { "cached" } else { "not cached" };
        output::line(format!("{:20} {state:12} {}", item.name, item.about));
        output::line(format!("{:33} {}; {}; from {}", "", item.license, item.size, item.from));
    }
    Ok(())
}
