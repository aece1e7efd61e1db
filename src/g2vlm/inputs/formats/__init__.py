"""What picture and video files are made of: kinds, metadata, colours, pages; read with suspicion."""
