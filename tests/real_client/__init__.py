"""Published client SDKs, driven against what serves."""
