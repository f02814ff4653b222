//go:build plugin

// Plugin is a library that go-xla opens in place of XLA: a PJRT plugin whose devices are parts of the CPU and whose programs
// run on this module's own backend. With it, what is built with -tags xla is tested where there is no XLA:
//
//	CGO_ENABLED=1 CGO_CFLAGS=-I$(go list -m -f '{{.Dir}}' github.com/gomlx/go-xla)/pjrt \
//	go build -tags plugin -buildmode=c-shared -o plugins/pjrt_c_api_vec_plugin.so ./internal/plugin
//
// Then xla:vec is a backend where PJRT_PLUGIN_LIBRARY_PATH names the folder. ADAAD_PLUGIN_DEVICES is how many devices there are, 1 without it. The plugin has the calls that go-xla makes and no others,
// and each is done when it returns. Structs are those of go-xla's own header, so no call asks how large they are.
package main

/*
#include <stdlib.h>
#include "pjrt_c_api.h"

// What go-xla has of an object is memory of C: a handle of the Go object behind it, and what calls hand out of it.
struct PJRT_Error             { PJRT_Error_Code code; char *message; size_t message_size; };
struct PJRT_DeviceDescription { char *text; size_t text_size; };
struct PJRT_Device            { int id; PJRT_DeviceDescription description; };
struct PJRT_Client            { uintptr_t handle; PJRT_Device **devices; size_t num_devices; };
struct PJRT_Buffer            { uintptr_t handle; PJRT_Device *device; PJRT_Buffer_Type type; int64_t *dims; size_t num_dims; };
struct PJRT_Executable        { char *name; size_t name_size, num_outputs; };
struct PJRT_LoadedExecutable  { uintptr_t handle; PJRT_Client *client; };

// ANSWERS are the calls that C answers by what an object holds. Where nothing is said the answer is the zeros that go-xla hands
// in: the one process has number 0, and of the memory that a program takes nothing is known.
#define ANSWERS(CALL) \
	CALL(Error_GetCode, args->code = args->error->code) \
	CALL(Plugin_Initialize, ) CALL(Plugin_Attributes, ) CALL(Event_Await, ) CALL(Event_Destroy, ) \
	CALL(Client_PlatformName, args->platform_name = "vec"; args->platform_name_size = 3) \
	CALL(Client_PlatformVersion, args->platform_version = "1"; args->platform_version_size = 1) \
	CALL(Client_ProcessIndex, ) CALL(DeviceDescription_ProcessIndex, ) CALL(Executable_GetCompiledMemoryStats, ) \
	CALL(Client_Devices, args->devices = args->client->devices; args->num_devices = args->client->num_devices) \
	CALL(Client_AddressableDevices, args->addressable_devices = args->client->devices; \
		args->num_addressable_devices = args->client->num_devices) \
	CALL(Device_GetDescription, args->device_description = &args->device->description) \
	CALL(Device_IsAddressable, args->is_addressable = true) \
	CALL(Device_LocalHardwareId, args->local_hardware_id = args->device->id) \
	CALL(DeviceDescription_DebugString, args->debug_string = args->device_description->text; \
		args->debug_string_size = args->device_description->text_size) \
	CALL(Executable_Name, args->executable_name = args->executable->name; args->executable_name_size = args->executable->name_size) \
	CALL(Executable_NumOutputs, args->num_outputs = args->executable->num_outputs) \
	CALL(Buffer_ElementType, args->type = args->buffer->type) \
	CALL(Buffer_Dimensions, args->dims = args->buffer->dims; args->num_dims = args->buffer->num_dims) \
	CALL(Buffer_Device, args->device = args->buffer->device)

#define ANSWER(name, ...) static PJRT_Error *name(PJRT_##name##_Args *args) { __VA_ARGS__; return NULL; }
ANSWERS(ANSWER)

static void Error_Message(PJRT_Error_Message_Args *args) {
	args->message = args->error->message;
	args->message_size = args->error->message_size;
}

static void Error_Destroy(PJRT_Error_Destroy_Args *args) {
	if (args->error) {
		free(args->error->message);
		free(args->error);
	}
}

// CALLS are those that Go answers. It knows each by a number.
#define CALLS(CALL) \
	CALL(Client_Create) CALL(Client_Destroy) CALL(Client_DefaultDeviceAssignment) \
	CALL(Client_Compile) CALL(Client_BufferFromHostBuffer) CALL(Client_CreateViewOfDeviceBuffer) \
	CALL(Executable_Destroy) CALL(LoadedExecutable_GetExecutable) CALL(LoadedExecutable_Execute) CALL(LoadedExecutable_Destroy) \
	CALL(Buffer_ToHostBuffer) CALL(Buffer_CopyToDevice) CALL(Buffer_UnsafePointer) CALL(Buffer_Destroy)

#define NUMBER(name) call_##name,
enum { CALLS(NUMBER) };

PJRT_Error *pluginCall(int call, void *args);
#define ASK(name) static PJRT_Error *name(PJRT_##name##_Args *args) { return pluginCall(call_##name, args); }
CALLS(ASK)

static PJRT_Api *table(void) {
#define FIELD(name, ...) .PJRT_##name = name,
	static PJRT_Api api = {
		.struct_size = PJRT_Api_STRUCT_SIZE,
		.pjrt_api_version = {PJRT_Api_Version_STRUCT_SIZE, NULL, PJRT_API_MAJOR, PJRT_API_MINOR},
		ANSWERS(FIELD) CALLS(FIELD) FIELD(Error_Message) FIELD(Error_Destroy)
	};
	return &api;
}
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/cgo"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

func main() {}

// GetPjrtApi is how go-xla finds everything else.
//
//export GetPjrtApi
func GetPjrtApi() *C.PJRT_Api { return C.table() }

// calls are what the calls do, by number.
var calls = [...]func(args unsafe.Pointer) error{
	C.call_Client_Create:                   typed(clientCreate),
	C.call_Client_Destroy:                  typed(clientDestroy),
	C.call_Client_DefaultDeviceAssignment:  typed(clientDefaultDeviceAssignment),
	C.call_Client_Compile:                  typed(clientCompile),
	C.call_Client_BufferFromHostBuffer:     typed(clientBufferFromHostBuffer),
	C.call_Client_CreateViewOfDeviceBuffer: unshared,
	C.call_Executable_Destroy:              typed(executableDestroy),
	C.call_LoadedExecutable_GetExecutable:  typed(loadedExecutableGetExecutable),
	C.call_LoadedExecutable_Execute:        typed(loadedExecutableExecute),
	C.call_LoadedExecutable_Destroy:        typed(loadedExecutableDestroy),
	C.call_Buffer_ToHostBuffer:             typed(bufferToHostBuffer),
	C.call_Buffer_CopyToDevice:             typed(bufferCopyToDevice),
	C.call_Buffer_UnsafePointer:            unshared,
	C.call_Buffer_Destroy:                  typed(bufferDestroy),
}

// typed makes a call of one that knows what its arguments are.
func typed[A any](call func(*A) error) func(unsafe.Pointer) error {
	return func(args unsafe.Pointer) error { return call((*A)(args)) }
}

// errShared is the error that has a code of its own.
var errShared = errors.New("the devices share no buffers with the host; go-xla expects that of a plugin with cpu in its name")

func unshared(unsafe.Pointer) error { return errShared }

//export pluginCall
func pluginCall(call C.int, args unsafe.Pointer) (failed *C.PJRT_Error) {
	defer func() {
		if p := recover(); p != nil {
			failed = newError(C.PJRT_Error_Code_INTERNAL, fmt.Sprintf("the plugin panicked: %v", p))
		}
	}()
	switch err := calls[call](args); err {
	case nil:
		return nil
	case errShared:
		return newError(C.PJRT_Error_Code_UNIMPLEMENTED, err.Error())
	default:
		return newError(C.PJRT_Error_Code_INVALID_ARGUMENT, err.Error())
	}
}

func newError(code C.PJRT_Error_Code, message string) *C.PJRT_Error {
	e := alloc[C.PJRT_Error](1)
	e.code = code
	e.message, e.message_size = text(message)
	return e
}

// done is the one event: what it stands for is done.
var done = (*C.PJRT_Event)(C.malloc(1))

// alloc is memory of C for n values, all zero.
func alloc[T any](n int) *T {
	return (*T)(C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(*new(T)))))
}

func free[T any](p *T) { C.free(unsafe.Pointer(p)) }

// text is a copy of a string in memory of C, and its size.
func text(s string) (*C.char, C.size_t) { return C.CString(s), C.size_t(len(s)) }

// handle is what C holds in place of an object.
func handle(object any) C.uintptr_t { return C.uintptr_t(cgo.NewHandle(object)) }

// object is what a handle stands for.
func object[T any](handle C.uintptr_t) T { return cgo.Handle(handle).Value().(T) }

func clientCreate(a *C.PJRT_Client_Create_Args) error {
	name := C.CString("ADAAD_PLUGIN_DEVICES")
	defer free(name)
	c, err := newClient(C.GoString(C.getenv(name))) // os.Getenv would know the environment that the process began with
	if err != nil {
		return err
	}
	p := alloc[C.PJRT_Client](1)
	p.handle = handle(c)
	p.devices, p.num_devices = alloc[*C.PJRT_Device](c.devices), C.size_t(c.devices)
	for i := range devices(p) {
		d := alloc[C.PJRT_Device](1)
		d.id = C.int(i)
		d.description.text, d.description.text_size = text(fmt.Sprintf("vec device %d", i))
		devices(p)[i] = d
	}
	a.client = p
	return nil
}

func devices(c *C.PJRT_Client) []*C.PJRT_Device { return unsafe.Slice(c.devices, c.num_devices) }

func clientDestroy(a *C.PJRT_Client_Destroy_Args) error {
	object[*client](a.client.handle).destroy()
	cgo.Handle(a.client.handle).Delete()
	for _, d := range devices(a.client) {
		free(d.description.text)
		free(d)
	}
	free(a.client.devices)
	free(a.client)
	return nil
}

// clientDefaultDeviceAssignment takes the first devices.
func clientDefaultDeviceAssignment(a *C.PJRT_Client_DefaultDeviceAssignment_Args) error {
	n := int(a.num_replicas * a.num_partitions)
	if n > int(a.client.num_devices) {
		return fmt.Errorf("%d devices are asked for, there are %d", n, a.client.num_devices)
	}
	for i := range n {
		unsafe.Slice(a.default_assignment, n)[i] = C.int(i)
	}
	return nil
}

// clientCompile reads none of the options: the program itself says how many devices it is for.
func clientCompile(a *C.PJRT_Client_Compile_Args) error {
	p := a.program
	format := unsafe.Slice((*byte)(unsafe.Pointer(p.format)), p.format_size)
	code := unsafe.Slice((*byte)(unsafe.Pointer(p.code)), p.code_size)
	e, err := object[*client](a.client.handle).compile(string(format), bytes.Clone(code))
	if err != nil {
		return err
	}
	a.executable = alloc[C.PJRT_LoadedExecutable](1)
	a.executable.handle, a.executable.client = handle(e), a.client
	return nil
}

// clientBufferFromHostBuffer copies values that lie row by row: go-xla asks for no other layout.
func clientBufferFromHostBuffer(a *C.PJRT_Client_BufferFromHostBuffer_Args) error {
	var dims []int
	for _, n := range unsafe.Slice(a.dims, a.num_dims) {
		dims = append(dims, int(n))
	}
	shape := shapes.Make(dtypes.DType(a._type), dims...) // go-xla's numbers are the same
	values := bytes.Clone(unsafe.Slice((*byte)(a.data), shape.ByteSize()))
	a.buffer = newBuffer(object[*client](a.client.handle).newBuffer(int(a.device.id), shape, values), a.device)
	a.done_with_host_buffer = done
	return nil
}

// newBuffer is a buffer as go-xla has it.
func newBuffer(b *buffer, device *C.PJRT_Device) *C.PJRT_Buffer {
	rank := b.shape.Rank()
	p := alloc[C.PJRT_Buffer](1)
	p.handle, p.device, p._type = handle(b), device, C.PJRT_Buffer_Type(b.shape.DType)
	p.dims, p.num_dims = alloc[C.int64_t](rank), C.size_t(rank)
	for i, n := range b.shape.Dimensions {
		unsafe.Slice(p.dims, rank)[i] = C.int64_t(n)
	}
	return p
}

func executableDestroy(a *C.PJRT_Executable_Destroy_Args) error {
	free(a.executable.name)
	free(a.executable)
	return nil
}

func loadedExecutableGetExecutable(a *C.PJRT_LoadedExecutable_GetExecutable_Args) error {
	program := object[*executable](a.loaded_executable.handle).program
	a.executable = alloc[C.PJRT_Executable](1)
	a.executable.name, a.executable.name_size = text(program.Name)
	a.executable.num_outputs = C.size_t(len(program.Out))
	return nil
}

// loadedExecutableExecute donates nothing: go-xla destroys the inputs that it donates.
func loadedExecutableExecute(a *C.PJRT_LoadedExecutable_Execute_Args) error {
	e := object[*executable](a.executable.handle)
	n, args := int(a.num_devices), int(a.num_args)
	if p := e.program; n != p.Devices || args != len(p.In) {
		return fmt.Errorf("%s is given %d inputs on %d devices, expected %d on %d", p.Name, args, n, len(p.In), p.Devices)
	}
	on := devices(a.executable.client)[:n]
	if a.execute_device != nil {
		on = []*C.PJRT_Device{a.execute_device}
	}
	ids, inputs := make([]int, n), make([][]*buffer, n)
	for d := range n {
		ids[d] = int(on[d].id)
		for i := range args {
			b := unsafe.Slice(unsafe.Slice(a.argument_lists, n)[d], args)[i]
			if b == nil {
				return fmt.Errorf("input %d of %s for device %d was destroyed", i, e.program.Name, ids[d])
			}
			inputs[d] = append(inputs[d], object[*buffer](b.handle))
		}
	}
	outputs, err := e.execute(inputs, ids)
	if err != nil {
		return err
	}
	for d := range n {
		for i, b := range outputs[d] {
			unsafe.Slice(unsafe.Slice(a.output_lists, n)[d], len(outputs[d]))[i] = newBuffer(b, on[d])
		}
		if a.device_complete_events != nil {
			unsafe.Slice(a.device_complete_events, n)[d] = done
		}
	}
	return nil
}

// loadedExecutableDestroy may come after the client is destroyed.
func loadedExecutableDestroy(a *C.PJRT_LoadedExecutable_Destroy_Args) error {
	object[*executable](a.executable.handle).program.Exec.Finalize()
	cgo.Handle(a.executable.handle).Delete()
	free(a.executable)
	return nil
}

// bufferToHostBuffer copies the values out, row by row, or says how many bytes they are.
func bufferToHostBuffer(a *C.PJRT_Buffer_ToHostBuffer_Args) error {
	values := object[*buffer](a.src.handle).values
	size := C.size_t(len(values))
	switch {
	case a.dst == nil:
		a.dst_size = size
	case a.dst_size < size:
		return fmt.Errorf("there are %d bytes for the values of a buffer, expected %d", a.dst_size, size)
	default:
		copy(unsafe.Slice((*byte)(a.dst), size), values)
	}
	a.event = done
	return nil
}

func bufferCopyToDevice(a *C.PJRT_Buffer_CopyToDevice_Args) error {
	b := object[*buffer](a.buffer.handle)
	a.dst_buffer = newBuffer(b.client.newBuffer(int(a.dst_device.id), b.shape, b.values), a.dst_device)
	return nil
}

func bufferDestroy(a *C.PJRT_Buffer_Destroy_Args) error {
	object[*buffer](a.buffer.handle).destroy()
	cgo.Handle(a.buffer.handle).Delete()
	free(a.buffer.dims)
	free(a.buffer)
	return nil
}
