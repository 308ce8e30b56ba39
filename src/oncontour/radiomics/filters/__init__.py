"""Image filters of IBSI-2 before features are computed: mean, Laplacian of Gaussian, Laws, Gabor, wavelets, Riesz transforms."""
