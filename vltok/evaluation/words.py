"""What people call the figures."""

#: What a figure is called in plots and reports, with its unit; of others the name itself is plain.
WORDS = {
    "psnr": "PSNR [dB]",
    "psnr_pooled": "PSNR of all images together [dB]",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "l1": "mean absolute error (of 0 … 1)",
    "mse": "mean squared error (of 0 … 1)",
    "rfid": "rFID",
    "fid": "FID",
    "rkid": "rKID",
    "kid": "KID",
    "frechet_distance": "Fréchet distance",
    "class_score": "Inception score by another network's classes",
    "length": "codes an image",
    "length_std": "standard deviation of codes an image",
    "length_of_samples": "codes a drawn image",
    "length_of_data": "codes a held-out image",
    "bits_per_pixel": "bits per pixel",
    "file_bits_per_pixel": "bits per pixel of whole files",
    "error_correlation": "rank correlation of granularity with error at fixed length",
    "error_correlation_per_picture": "the same within a picture, mean",
    "contrast_correlation": "rank correlation of granularity with local contrast",
    "flat_finest_share": "share of the flat regions that have the finest codes",
}

#: What the keys of a record's protocol mean.
PROTOCOL = {
    "data.pixels": "pixels",
    "data.split": "split",
    "data.size": "side of a picture, in pixels",
    "data.images": "pictures",
    "features.name": "feature network",
    "features.weights": "its weights",
    "features.package": "its package",
    "lpips.name": "network of LPIPS",
    "lpips.weights": "its weights",
    "fixed": "code of fixed length",
    "precision": "computed in",
    "versions.torchmetrics": "torchmetrics",
    "versions.pillow": "Pillow",
    "drawn.count": "pictures drawn",
    "drawn.seed": "seed of what was drawn",
}


def in_words(name: str) -> str:
    """A figure's name in words; one that rests on a feature network names it."""
    figure, _, network = name.partition("/")
    if not figure.isidentifier():  # a name of somebody else's
        return name
    words = WORDS.get(figure, figure.replace("_", " "))
    return f"{words}, {network}" if network else words
