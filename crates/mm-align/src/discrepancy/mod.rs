//! Distances between two feature sets as distributions, and dependence of paired rows.
//!
//! | purpose | function |
//! | --- | --- |
//! | train two encoders toward each other, batches of some hundred rows | [`mmd`] with several bandwidths |
//! | the same with small batches (cheaper, gradients never vanish) | [`coral`], [`central_moment_discrepancy`] |
//! | the same where the supports do not overlap | [`sliced_wasserstein`] |
//! | decide whether two sets differ | [`mmd_test`], a p-value |
//! | report a distance without hyper-parameters | [`energy_distance`] |
//! | compare two representations of the same rows | [`cka`], whatever their dimensions; [`hsic`] as a loss |
//!
//! Everything but the test is differentiable.

mod dependence;
mod mmd;
mod moments;
mod sliced_wasserstein;

pub use dependence::{cka, hsic};
pub use mmd::{MmdEstimator, PermutationTest, conditional_mmd, mmd, mmd_test};
pub use moments::{central_moment_discrepancy, coral, energy_distance};
pub use sliced_wasserstein::sliced_wasserstein;

#[cfg(test)]
mod tests;
