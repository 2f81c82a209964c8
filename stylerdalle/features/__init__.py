"""Features of pictures, and how far two pictures are apart in style and in content."""

from .distances import StyleStatistics, content_distance, style_distance, style_statistics
from .network import FeatureNetwork, FeatureShape

__all__ = ["FeatureNetwork", "FeatureShape", "StyleStatistics", "content_distance", "style_distance", "style_statistics"]
