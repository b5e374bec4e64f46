//! Distances between two feature sets as distributions, and dependence of paired rows.
//!
//! | purpose | function |
//! | --- | --- |
//! | a loss that makes two encoders' distributions match, batches of some hundred rows | [`mmd`] with several bandwidths |
//! | such a loss for small batches (cheaper, gradients never vanish) | [`coral`], [`central_moment_discrepancy`] |
//! | such a loss where the supports do not overlap | [`sliced_wasserstein`] |
//! | decide whether two sets differ | [`mmd_test`], a p-value |
//! | report a distance without hyper-parameters | [`energy_distance`] |
//! | compare two representations of the same rows | [`cka`], whatever their dimensions; [`hsic`] as a loss |
//!
//! All functions but [`mmd_test`] are differentiable.

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
