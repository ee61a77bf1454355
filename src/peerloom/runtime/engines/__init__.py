"""The engines that members run on."""
