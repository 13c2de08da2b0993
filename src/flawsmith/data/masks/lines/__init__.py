"""Where and in what shape to damage: real masks re-posed, drawn shapes, kept on the part."""
