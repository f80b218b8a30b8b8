"""Pictures, reports and neuroglancer: people look before they read."""
