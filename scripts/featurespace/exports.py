"""What `from featurespace import ...` offers: {name: the module that has it}."""

EXPORTS = {
    **dict.fromkeys(
        [
            *("decompose", "p_vector", "Decomposition"),
            *("angle_deg", "angle_to_ones_deg", "correlation", "compare", "Comparison", "principal_angles_deg"),
            *("layer_measures", "linear_cka", "deconfounded_cka", "svcca", "procrustes_distance"),
            *("permutation_null", "haar_null", "random_subspace", "noise_features"),
        ],
        "featurespace.arrays",
    ),
    "Recorder": "featurespace.recorder",
    "join_seeds": "featurespace.recordings",
    "recover": "featurespace.recordings",
    "FeatureStore": "featurespace.stores",
    "FeaturespaceError": "featurespace.errors",
}
