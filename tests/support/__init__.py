"""What tests share: fake services, kernels, recorded traffic, snapshots."""
