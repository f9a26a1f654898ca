"""Generated messages of container runtimes' gRPC (script/generate-stubs). Only the cri modules of agent.drivers import them."""
