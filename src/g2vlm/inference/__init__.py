"""From photos and questions to scenes and answers."""
