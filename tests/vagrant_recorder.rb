# Evaluates a Vagrantfile without Vagrant: records each setting, in every provider's block, and prints them as JSON.
require "json"

module Vagrant
  VERSION = ENV.fetch("RECORDED_VAGRANT", "2.4.1")

  def self.configure(_api)
    settings = {}
    yield Recorder.new(settings)
    puts JSON.pretty_generate(settings)
  end
end

class Recorder
  def initialize(settings) = @settings = settings
  def define(name, **_options) = yield(inner("machine #{name}"))
  def provider(name) = yield(inner("provider #{name}"))
  def network(kind, **options) = @settings["network #{kind}"] = options
  def synced_folder(from, to, **options) = @settings["folder #{to}"] = { from: from, **options }
  def provision(kind, **options) = @settings["provision #{kind}"] = options
  def vm = inner("vm")

  def method_missing(name, *values)
    raise NoMethodError, "the recorder knows no #{name}" unless name.end_with?("=")

    @settings[name.to_s.delete_suffix("=")] = values.first
  end

  def respond_to_missing?(name, _all = false) = name.end_with?("=")

  private

  def inner(name) = Recorder.new(@settings[name] ||= {})
end

load ARGV.fetch(0)
